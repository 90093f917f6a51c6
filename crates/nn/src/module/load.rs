//! Giving a whole model other values: all or nothing.

use super::EntryMut;
use gradus_core::{Error, Result, Tensor};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

/// Calls the function with every leaf of the model. (A closure, because a provided method cannot hand out `self` as a `dyn`.)
type Walk<'w> = dyn FnMut(&mut dyn FnMut(&str, EntryMut<'_>)) + 'w;

/// What of a state was not taken, and what of a model was not given: see
/// [`Module::load_partial`](super::Module::load_partial).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Unmatched {
    /// Names that the model has and the state lacks: these parts keep their values.
    pub missing: Vec<String>,
    /// Names that the state has and the model lacks.
    pub unexpected: Vec<String>,
    /// Names that both have, with another shape or dtype: these parts keep their values. With what each has.
    pub misfitting: Vec<(String, String)>,
}

impl Unmatched {
    /// Whether everything matched.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.misfitting.is_empty()
    }
}

impl fmt::Display for Unmatched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.missing.len() + self.unexpected.len() + self.misfitting.len();
        write!(f, "{n} mismatch{}", if n == 1 { "" } else { "es" })?;
        self.missing.iter().try_for_each(|name| write!(f, "\n  {name}: missing"))?;
        self.misfitting.iter().try_for_each(|(name, why)| write!(f, "\n  {name}: {why}"))?;
        self.unexpected.iter().try_for_each(|name| write!(f, "\n  {name}: unexpected"))
    }
}

/// A name of the model against the state.
fn misfit(have: &Tensor, given: &Tensor) -> Option<String> {
    let described = |t: &Tensor| format!("{} {}", t.dtype(), t.shape());
    (given.meta() != have.meta()).then(|| format!("the model has {}, the state {}", described(have), described(given)))
}

/// Takes values by name. See [`Module::load_state_dict`](super::Module::load_state_dict).
pub(super) fn load(walk: &mut Walk<'_>, state: &BTreeMap<String, Tensor>) -> Result<()> {
    let mut faults = Vec::new();
    let mut known = BTreeSet::new();
    walk(&mut |name, e| {
        let Some(have) = e.value() else { return };
        if !known.insert(name.to_owned()) {
            faults.push(format!("{name}: two parts of the model have this name"));
            return;
        }
        match state.get(name) {
            None => faults.push(format!("{name}: missing; the model wants {} {}", have.dtype(), have.shape())),
            Some(given) => faults.extend(misfit(&have, given).map(|why| format!("{name}: {why}"))),
        }
    });
    for (name, given) in state.iter().filter(|(name, _)| !known.contains(*name)) {
        faults.push(format!(
            "{name}: unexpected; the state has {} {}, the model nothing of that name",
            given.dtype(),
            given.shape()
        ));
    }
    if !faults.is_empty() {
        return Err(Error::data(listed(&faults)));
    }
    take(walk, state)
}

/// Takes those values that fit. See [`Module::load_partial`](super::Module::load_partial).
pub(super) fn load_partial(walk: &mut Walk<'_>, state: &BTreeMap<String, Tensor>) -> Result<Unmatched> {
    let (mut unmatched, mut fitting, mut known) = (Unmatched::default(), BTreeMap::new(), BTreeSet::new());
    let mut twice = None;
    walk(&mut |name, e| {
        let Some(have) = e.value() else { return };
        if !known.insert(name.to_owned()) {
            twice = Some(name.to_owned());
        }
        match state.get(name) {
            None => unmatched.missing.push(name.to_owned()),
            Some(given) => match misfit(&have, given) {
                Some(why) => unmatched.misfitting.push((name.to_owned(), why)),
                None => drop(fitting.insert(name.to_owned(), given.clone())),
            },
        }
    });
    if let Some(name) = twice {
        return Err(Error::misuse(format!("two parts of the model are called {name}")));
    }
    unmatched.unexpected = state.keys().filter(|name| !known.contains(*name)).cloned().collect();
    take(walk, &fitting)?;
    Ok(unmatched)
}

/// Takes values that are known to fit; on an error the model is untouched.
fn take(walk: &mut Walk<'_>, state: &BTreeMap<String, Tensor>) -> Result<()> {
    // Moves may fail, so all of them come before the first change.
    let mut moved = BTreeMap::new();
    let mut failed = None;
    walk(&mut |name, e| {
        let (Some(have), Some(given)) = (e.value(), state.get(name)) else { return };
        match gradus_core::tensor::to_device(&given.detach(), have.device()) {
            Ok(value) => drop(moved.insert(name.to_owned(), value)),
            Err(e) => drop(failed.get_or_insert_with(|| e.context(name))),
        }
    });
    if let Some(e) = failed {
        return Err(e);
    }
    let mut outcome = Ok(());
    walk(&mut |name, e| {
        let Some(value) = moved.remove(name) else { return };
        let set = match e {
            EntryMut::Parameter(p) => p.value_mut().set_value(&value),
            EntryMut::State(s) => s.set(&value),
            EntryMut::Site(_) => Ok(()),
        };
        if let Err(e) = set {
            outcome = Err(e.context(name));
        }
    });
    outcome
}

fn listed(faults: &[String]) -> String {
    let plural = if faults.len() == 1 { "" } else { "es" };
    let mut message = format!("the state does not fit the model ({} mismatch{plural}):", faults.len());
    for fault in faults {
        let _ = write!(message, "\n  {fault}"); // writing to a string cannot fail
    }
    message
}

/// Replaces every value by what `to` makes of it; nothing changes if that fails for any.
pub(super) fn convert(walk: &mut Walk<'_>, to: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<()> {
    let mut made = Vec::new();
    let mut failed = None;
    walk(&mut |name, e| {
        let Some(have) = e.value() else { return };
        match gradus_core::no_grad(|| to(&have)) {
            Ok(value) => made.push(value),
            Err(e) => drop(failed.get_or_insert_with(|| e.context(name))),
        }
    });
    if let Some(e) = failed {
        return Err(e);
    }
    let mut made = made.into_iter();
    let mut outcome = Ok(());
    walk(&mut |name, e| match e {
        EntryMut::Site(_) => {}
        EntryMut::Parameter(p) => {
            if let Some(Err(e)) = made.next().map(|value| p.replace(value)) {
                outcome = Err(e.context(name));
            }
        }
        EntryMut::State(s) => {
            if let Some(value) = made.next() {
                s.replace(value);
            }
        }
    });
    outcome
}
