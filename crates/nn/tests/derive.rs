//! The derive: names, containers, attributes, plain data.

use gradus_core::{DType, Tensor};
use gradus_nn::{Init, Linear, Module, Param, Relu, Sequential, Site, State};
use std::collections::BTreeMap;
use std::marker::PhantomData;

fn param(n: usize) -> Param {
    Param::new(Tensor::zeros([n], gradus_cpu::device()))
}

fn names(m: &dyn Module) -> Vec<String> {
    m.named_parameters().into_iter().map(|(name, _)| name).collect()
}

#[derive(Module)]
struct Inner {
    weight: Param,
    r#type: Param,
}

fn inner() -> Inner {
    Inner { weight: param(1), r#type: param(1) }
}

#[derive(Module)]
struct Everything<M, T: Send + Sync + Clone>
where
    T: Default,
{
    plain: f64,
    text: String,
    maybe: Option<usize>,
    first: Inner,
    list: Vec<Inner>,
    array: [Param; 2],
    pair: (Param, Inner),
    present: Option<Inner>,
    absent: Option<Inner>,
    boxed: Box<dyn Module>,
    map: BTreeMap<String, Param>,
    #[module(rename = "other_name")]
    renamed: Param,
    #[module(flatten)]
    flat: Inner,
    #[module(skip)]
    skipped: fn(f32) -> f32,
    #[module(skip)]
    also_skipped: Tensor,
    statistic: State,
    dtype: DType,
    generic: M,
    marker: PhantomData<T>,
    site: Site,
}

#[test]
fn every_kind_of_field_has_its_name() {
    let mut m = Everything {
        plain: 1.0,
        text: "x".into(),
        maybe: Some(3),
        first: inner(),
        list: vec![inner(), inner()],
        array: [param(1), param(1)],
        pair: (param(1), inner()),
        present: Some(inner()),
        absent: None,
        boxed: Box::new(inner()),
        map: BTreeMap::from([("b".to_owned(), param(1)), ("a".to_owned(), param(1))]),
        renamed: param(1),
        flat: inner(),
        skipped: f32::abs,
        also_skipped: Tensor::zeros([9], gradus_cpu::device()),
        statistic: State::new(Tensor::zeros([4], gradus_cpu::device())),
        dtype: DType::F32,
        generic: param(5),
        marker: PhantomData::<u8>,
        site: Site::default(),
    };
    let expected = [
        "first.weight",
        "first.type",
        "list.0.weight",
        "list.0.type",
        "list.1.weight",
        "list.1.type",
        "array.0",
        "array.1",
        "pair.0",
        "pair.1.weight",
        "pair.1.type",
        "present.weight",
        "present.type",
        "boxed.weight",
        "boxed.type",
        "map.a",
        "map.b",
        "other_name",
        "weight",
        "type",
        "generic",
    ];
    assert_eq!(names(&m), expected);
    let mutable: Vec<String> = m.named_parameters_mut().into_iter().map(|(name, _)| name).collect();
    assert_eq!(mutable, expected);
    assert_eq!(m.named_states().into_iter().map(|(name, _)| name).collect::<Vec<_>>(), ["statistic"]);
    assert_eq!(m.parameter_count(), 20 + 5);
    assert_eq!(m.kind(), "Everything");
    assert_eq!((m.plain, m.text.as_str(), m.maybe, m.dtype, m.skipped(-1.0)), (1.0, "x", Some(3), DType::F32, 1.0));
    assert_eq!(m.also_skipped.elements(), 9);
    m.assign_paths();
    assert_eq!(m.site().and_then(Site::path).map(|p| &**p), Some(""));
}

impl<M, T: Send + Sync + Clone + Default> Everything<M, T> {
    fn skipped(&self, x: f32) -> f32 {
        (self.skipped)(x)
    }
}

#[derive(Module)]
struct Tuple(Param, u8, Vec<(Param, Param)>);

#[derive(Module)]
struct Unit;

#[derive(Module)]
enum Norm {
    /// Transparent: the variant is what it holds.
    One(Inner),
    Two(Param, Param),
    Named {
        scale: Param,
        power: u32,
    },
    Nothing,
}

#[test]
fn tuple_structs_and_enums_have_names_too() {
    assert_eq!(names(&Tuple(param(1), 3, vec![(param(1), param(1))])), ["0", "2.0.0", "2.0.1"]);
    assert_eq!(names(&Unit), [""; 0]);
    assert_eq!(names(&Norm::One(inner())), ["weight", "type"]);
    assert_eq!(names(&Norm::Two(param(1), param(1))), ["0", "1"]);
    assert_eq!(names(&Norm::Named { scale: param(1), power: 2 }), ["scale"]);
    assert_eq!(names(&Norm::Nothing), [""; 0]);
    assert_eq!(names(&vec![Some(param(1)), None, Some(param(1))]), ["0", "2"]);
}

#[derive(Module)]
struct Net {
    body: Vec<Block>,
    head: Sequential,
    site: Site,
}
#[derive(Module)]
struct Block {
    fc: Linear,
    site: Site,
}

#[test]
fn layers_learn_their_paths() {
    let mut init = Init::new(gradus_cpu::device(), 0);
    let block = |init: &mut Init| Block { fc: Linear::new(2, 2, init), site: Site::default() };
    let body = vec![block(&mut init), block(&mut init)];
    let net = Net { body, head: Sequential::new().add(Relu).add(Linear::new(2, 2, &mut init)), site: Site::default() };
    assert!(net.body[0].site.path().is_none());
    let net = net.with_paths();
    let path = |m: &dyn Module| m.site().and_then(Site::path).map(|p| p.to_string());
    assert_eq!(path(&net.body[1]).as_deref(), Some("body.1"));
    assert_eq!(path(&net.body[1].fc).as_deref(), Some("body.1.fc"));
    assert_eq!(path(&net.head).as_deref(), Some("head"));
    assert_eq!(path(&net.head.layers()[1]).as_deref(), Some("head.1"));
    assert_eq!(path(&net).as_deref(), Some(""));
    assert_eq!(net.site.stream(), "");
}

#[test]
fn errors_of_the_derive_are_clear() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
