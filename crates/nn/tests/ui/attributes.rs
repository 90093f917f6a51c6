//! Attributes that do not exist, do not go together, or name nothing.

use gradus_nn::{Module, Param, Site};

#[derive(Module)]
struct Unknown {
    #[module(ignore)]
    a: Param,
}

#[derive(Module)]
struct Contradiction {
    #[module(skip, rename = "b")]
    a: Param,
}

#[derive(Module)]
struct Names {
    #[module(rename = "")]
    empty: Param,
    #[module(rename = "a.b")]
    dotted: Param,
    #[module(rename = "c", rename = "d")]
    twice: Param,
}

#[derive(Module)]
struct SameName {
    weight: Param,
    #[module(rename = "weight")]
    other: Param,
}

#[derive(Module)]
struct TwoSites {
    a: Site,
    b: Site,
}

#[derive(Module)]
#[module(skip)]
struct OnTheType {
    a: Param,
}

#[derive(Module)]
union Union {
    a: u32,
    b: f32,
}

fn main() {}
