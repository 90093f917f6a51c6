//! What a model is: a tree of named parts. Names are the spine of everything that outlives a process: files, checkpoints,
//! optimizer state and messages all go by them, as PyTorch's `state_dict` has them (`layers.0.weight`).

mod containers;
mod load;
mod plain;
mod visit;

pub use load::Unmatched;
pub use visit::{Entry, EntryMut, ParameterPath, Visitor, VisitorMut};

use crate::{Param, Site, State};
use gradus_core::error::raise;
use gradus_core::{DType, Device, Error, Result, Tensor};
use std::collections::BTreeMap;
use visit::{Each, EachMut};

/// A part of a model: a parameter, a layer, a struct of layers, or plain configuration (which has no parts).
///
/// Derive it: `#[derive(Module)]` visits every field under the field's name. A field may be a [`Param`], a [`State`], another
/// module, a `Vec`, array, tuple, `Box`, `Option` or `BTreeMap<String, _>` of modules, or plain data (numbers, `bool`,
/// strings, dtypes, devices, keys: modules without parts). Attributes of a field:
///
/// | attribute | effect |
/// |---|---|
/// | `#[module(skip)]` | the field is no part of the model (any type) |
/// | `#[module(rename = "name")]` | another name than the field's |
/// | `#[module(flatten)]` | the field's parts stand beside this struct's own, without a name between |
///
/// and of the type: `#[module(describe = path)]` names a `fn(&Self) -> String` for [`describe`](Self::describe), and
/// `#[module(crate = path)]` says where `gradus_nn` is, if it was renamed.
///
/// ```
/// use gradus_nn::{Module, Param};
/// use gradus_core::Tensor;
///
/// #[derive(Module)]
/// struct Affine { scale: Param, shift: Option<Param>, power: u32 }
///
/// let device = gradus_cpu::device();
/// let mut m = Affine { scale: Param::new(Tensor::ones([3], device)), shift: None, power: 2 };
/// assert_eq!(m.parameter_count(), 3);
/// m.shift = Some(Param::new(Tensor::zeros([3], device)));
/// let names: Vec<String> = m.named_parameters().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["scale", "shift"]);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a part of a model",
    label = "not a `Module`",
    note = "a value that is trained is a `Param`, one that is only kept a `State`; a struct of layers derives `Module`",
    note = "mark a field that is no part of the model with `#[module(skip)]`"
)]
pub trait Module: Send + Sync {
    /// Shows every part to `v`, in order.
    fn visit<'a>(&'a self, v: &mut dyn Visitor<'a>);
    /// Shows every part to `v`, in order, to be changed.
    fn visit_mut<'a>(&'a mut self, v: &mut dyn VisitorMut<'a>);

    /// The name of its type, for tables and messages; empty for plain data.
    fn kind(&self) -> &'static str {
        ""
    }
    /// Its options in a few words, for tables; may be empty.
    fn describe(&self) -> String {
        String::new()
    }
    /// Where it stands in its model, if it keeps note of that.
    fn site(&self) -> Option<&Site> {
        None
    }

    /// Calls `f` with every parameter, state and site, and its name.
    fn for_each<'a>(&'a self, f: &mut dyn FnMut(&str, Entry<'a>)) {
        self.visit(&mut Each::new(f));
    }
    /// Calls `f` with every parameter, state and site, and its name, to be changed.
    fn for_each_mut<'a>(&'a mut self, f: &mut dyn FnMut(&str, EntryMut<'a>)) {
        self.visit_mut(&mut EachMut::new(f));
    }
    /// Calls `f` with every parameter and its name.
    fn for_each_parameter<'a>(&'a self, f: &mut dyn FnMut(&str, &'a Param)) {
        self.for_each(&mut |name, e| {
            if let Entry::Parameter(p) = e {
                f(name, p)
            }
        });
    }
    /// Calls `f` with every parameter and its name, to be changed.
    fn for_each_parameter_mut<'a>(&'a mut self, f: &mut dyn FnMut(&str, &'a mut Param)) {
        self.for_each_mut(&mut |name, e| {
            if let EntryMut::Parameter(p) = e {
                f(name, p)
            }
        });
    }
    /// Every parameter with its name, frozen ones too.
    fn named_parameters(&self) -> Vec<(String, &Param)> {
        let mut all = Vec::new();
        self.for_each_parameter(&mut |name, p| all.push((name.to_owned(), p)));
        all
    }
    /// Every parameter with its name, to be changed: all at once, as an optimizer takes them.
    fn named_parameters_mut(&mut self) -> Vec<(String, &mut Param)> {
        let mut all = Vec::new();
        self.for_each_parameter_mut(&mut |name, p| all.push((name.to_owned(), p)));
        all
    }
    /// Every state (PyTorch: buffer) with its name.
    fn named_states(&self) -> Vec<(String, &State)> {
        let mut all = Vec::new();
        self.for_each(&mut |name, e| {
            if let Entry::State(s) = e {
                all.push((name.to_owned(), s))
            }
        });
        all
    }
    /// How many numbers its parameters hold, frozen ones included.
    fn parameter_count(&self) -> usize {
        let mut n = 0;
        self.for_each_parameter(&mut |_, p| n += p.elements());
        n
    }

    /// The values of all parameters and states by name. They are shared, not copied: the model's next update takes memory
    /// of its own, and what was handed out stays as it is. Panics at the caller's line if two parts have one name.
    #[track_caller]
    fn state_dict(&self) -> BTreeMap<String, Tensor> {
        let (mut all, mut twice) = (BTreeMap::new(), None);
        self.for_each(&mut |name, e| {
            if let Some(value) = e.value()
                && all.insert(name.to_owned(), value).is_some()
            {
                twice = Some(name.to_owned());
            }
        });
        match twice {
            Some(name) => raise(Error::misuse(format!("state_dict: two parts of the model are called {name}"))),
            None => all,
        }
    }
    /// Takes the values of `state`, by name; values on another device are moved.
    ///
    /// An error that lists every mismatch (missing, unexpected, another shape or dtype), the model untouched, unless all fit.
    fn load_state_dict(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        load::load(&mut |f| self.for_each_mut(f), state)
    }

    /// Takes those values of `state` that fit, by name, and says what did not: names that either side lacks, other shapes or
    /// dtypes. In PyTorch: `strict=False` (which refuses other shapes).
    ///
    /// ```
    /// use gradus_nn::{Init, Linear, Module, Relu, Sequential};
    /// let mut init = Init::new(gradus_cpu::device(), 0);
    /// let trained = Sequential::new().add(Linear::new(4, 8, &mut init)).add(Linear::new(8, 10, &mut init));
    /// // Another head: three classes.
    /// let mut model = Sequential::new().add(Linear::new(4, 8, &mut init)).add(Linear::new(8, 3, &mut init));
    /// let unmatched = model.load_partial(&trained.state_dict())?;
    /// let names: Vec<&str> = unmatched.misfitting.iter().map(|(name, _)| &name[..]).collect();
    /// assert_eq!(names, ["1.weight", "1.bias"]);
    /// assert!(unmatched.missing.is_empty() && unmatched.unexpected.is_empty());
    /// # Ok::<(), gradus_core::Error>(())
    /// ```
    fn load_partial(&mut self, state: &BTreeMap<String, Tensor>) -> Result<Unmatched> {
        load::load_partial(&mut |f| self.for_each_mut(f), state)
    }

    /// Forgets every parameter's gradient.
    fn zero_grad(&self) {
        self.for_each_parameter(&mut |_, p| p.zero_grad());
    }
    /// Freezes every parameter: see [`Param::freeze`].
    fn freeze(&mut self) {
        self.for_each_parameter_mut(&mut |_, p| p.freeze());
    }
    /// Trains every parameter: see [`Param::unfreeze`].
    fn unfreeze(&mut self) {
        self.for_each_parameter_mut(&mut |_, p| p.unfreeze());
    }
    /// Moves every parameter and state to `device`; gradients are forgotten. On an error the model is untouched.
    fn to_device(&mut self, device: Device) -> Result<()> {
        load::convert(&mut |f| self.for_each_mut(f), &|t| gradus_core::tensor::to_device(t, device))
    }
    /// Converts every floating-point parameter and state to `dtype`; gradients are forgotten. On an error the model is
    /// untouched.
    fn to_dtype(&mut self, dtype: DType) -> Result<()> {
        if !dtype.is_float() {
            return Err(Error::misuse(format!("to_dtype: parameters are floating-point numbers; {dtype} is not")));
        }
        load::convert(&mut |f| self.for_each_mut(f), &|t| {
            if t.dtype().is_float() { t.try_to_dtype(dtype) } else { Ok(t.clone()) }
        })
    }

    /// Tells every layer its path from here, which must be the model's root. Whoever trains a model does this once.
    fn assign_paths(&mut self) {
        self.for_each_mut(&mut |path, e| {
            if let EntryMut::Site(site) = e {
                site.assign(path)
            }
        });
    }
    /// This model with its paths assigned.
    fn with_paths(mut self) -> Self
    where
        Self: Sized,
    {
        self.assign_paths();
        self
    }
}
