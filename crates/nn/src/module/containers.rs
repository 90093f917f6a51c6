//! Modules in containers: elements go by their index or key; what merely holds a module adds no name.

use super::{Module, Visitor, VisitorMut};
use crate::Site;
use std::collections::BTreeMap;

/// A sequence: its elements go by their index.
macro_rules! sequence {
    ($kind:literal, $([$($generics:tt)*] $t:ty),*) => {$(
        impl<M: Module, $($generics)*> Module for $t {
            fn kind(&self) -> &'static str {
                $kind
            }
            fn visit<'a>(&'a self, v: &mut dyn Visitor<'a>) {
                for (i, m) in self.iter().enumerate() {
                    v.child(&i.to_string(), m);
                }
            }
            fn visit_mut<'a>(&'a mut self, v: &mut dyn VisitorMut<'a>) {
                for (i, m) in self.iter_mut().enumerate() {
                    v.child(&i.to_string(), m);
                }
            }
        }
    )*};
}
sequence!("List", [] Vec<M>, [const N: usize] [M; N]);

impl<M: Module> Module for BTreeMap<String, M> {
    fn kind(&self) -> &'static str {
        "Map"
    }
    fn visit<'a>(&'a self, v: &mut dyn Visitor<'a>) {
        for (name, m) in self {
            v.child(name, m);
        }
    }
    fn visit_mut<'a>(&'a mut self, v: &mut dyn VisitorMut<'a>) {
        for (name, m) in self {
            v.child(name, m);
        }
    }
}

/// A tuple: its elements go by their index.
macro_rules! tuple {
    ($($m:ident $i:tt),+) => {
        impl<$($m: Module),+> Module for ($($m,)+) {
            fn kind(&self) -> &'static str {
                "Tuple"
            }
            fn visit<'a>(&'a self, v: &mut dyn Visitor<'a>) {
                $(v.child(stringify!($i), &self.$i);)+
            }
            fn visit_mut<'a>(&'a mut self, v: &mut dyn VisitorMut<'a>) {
                $(v.child(stringify!($i), &mut self.$i);)+
            }
        }
    };
}
tuple!(A 0);
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);
tuple!(A 0, B 1, C 2, D 3, E 4);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);

/// A box is what is in it.
impl<M: Module + ?Sized> Module for Box<M> {
    fn kind(&self) -> &'static str {
        (**self).kind()
    }
    fn describe(&self) -> String {
        (**self).describe()
    }
    fn site(&self) -> Option<&Site> {
        (**self).site()
    }
    fn visit<'a>(&'a self, v: &mut dyn Visitor<'a>) {
        (**self).visit(v);
    }
    fn visit_mut<'a>(&'a mut self, v: &mut dyn VisitorMut<'a>) {
        (**self).visit_mut(v);
    }
}

/// An option is what is in it, or nothing.
impl<M: Module> Module for Option<M> {
    fn kind(&self) -> &'static str {
        self.as_ref().map_or("", M::kind)
    }
    fn describe(&self) -> String {
        self.as_ref().map_or_else(String::new, M::describe)
    }
    fn site(&self) -> Option<&Site> {
        self.as_ref().and_then(M::site)
    }
    fn visit<'a>(&'a self, v: &mut dyn Visitor<'a>) {
        if let Some(m) = self {
            m.visit(v);
        }
    }
    fn visit_mut<'a>(&'a mut self, v: &mut dyn VisitorMut<'a>) {
        if let Some(m) = self {
            m.visit_mut(v);
        }
    }
}
