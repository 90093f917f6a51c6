//! A recorded step: its calls, its kernels, and what its nodes need to be walked after all.

use super::event::{Effect, Event, Held, address_of};
use crate::View;
use crate::autodiff::{Node, Saved, inputs_of};
use crate::backend::{Replay, Storage};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::tensor::{Tensor, Value};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

/// What a call kept for backward.
pub(super) struct Kept {
    pub node: Arc<Node>,
    pub saved: Saved,
    /// The call that made the node, and the one whose walk freed it.
    pub made: usize,
    pub freed: Option<usize>,
}

pub(super) struct Record {
    pub events: Vec<Event>,
    pub replay: Box<dyn Replay>,
    pub kept: Vec<Kept>,
    /// Second handles, by the address of their value.
    pub aliases: HashSet<usize>,
    pub device: Device,
    pub flat: bool,
    /// What the step read or wrote of the outside.
    pub outside: Vec<Outside>,
    /// What the calls of the flat form gave.
    pub made: Vec<Made>,
}

/// A value of the flat form and its memory. The record holds neither.
pub(super) struct Made {
    value: Weak<Value>,
    memory: Weak<dyn Storage>,
}

impl Made {
    pub(super) fn of(value: &Arc<Value>) -> Made {
        Made { value: Arc::downgrade(value), memory: Arc::downgrade(&*value.buffer) }
    }

    /// Whether somebody holds it besides these tensors, which hold nothing else.
    fn is_held_but(&self, list: &[Tensor]) -> bool {
        let Some(memory) = self.memory.upgrade() else { return false };
        let views = list.iter().filter(|t| Arc::ptr_eq(&t.value.buffer, &memory));
        let values: HashSet<usize> = views.map(|t| address_of(&t.value)).collect();
        let handles = list.iter().filter(|t| Arc::as_ptr(&t.value) == self.value.as_ptr()).count();
        // The memory's handle from above counts, too.
        Arc::strong_count(&memory) != values.len() + 1 || self.value.strong_count() != handles
    }
}

/// A value of the outside that the step used.
pub(super) struct Outside {
    pub address: usize,
    pub value: Weak<Value>,
    pub updated: bool,
}

impl Kept {
    fn values(&self) -> impl Iterator<Item = &Arc<Value>> {
        values_of(&self.saved)
    }
}

fn values_of(s: &Saved) -> impl Iterator<Item = &Arc<Value>> {
    s.inputs.iter().flatten().chain(&s.outputs).chain(&s.aux).map(|t| &t.value)
}

impl Record {
    /// After the recorded step: finds out what each call overwrites, and how often the record itself holds that. Whether nobody
    /// else holds a graph that is still to be walked: it would see memory from outside through the record's second handles.
    pub(super) fn settle(&mut self) -> bool {
        let mut unwalked = HashSet::new();
        for k in &self.kept {
            if k.freed.is_none() && !k.node.saves_nothing() {
                k.node.put_saved(k.saved.clone());
                unwalked.insert(k.node.id);
            }
        }
        let leaves = self.events.iter().filter(|e| matches!(e.effect, Effect::Leaf));
        leaves.flat_map(|e| &e.outputs).for_each(Tensor::zero_grad);
        self.find_overwritten();
        self.count();
        let hangs = self.hanging_on(unwalked);
        let tracked = |t: &&Tensor| t.node.as_ref().is_some_and(|n| hangs.contains(&n.id));
        let graphs: HashSet<usize> =
            self.events.iter().flat_map(|e| &e.outputs).filter(tracked).map(|t| address_of(&t.value)).collect();
        let held = self.events.iter().flat_map(|e| &e.alone);
        held.filter(|h| graphs.contains(&address_of(&h.value))).all(Held::is_alone)
    }

    /// These nodes and the record's nodes that were made from them.
    fn hanging_on(&self, mut found: HashSet<u64>) -> HashSet<u64> {
        let outputs = self.events.iter().flat_map(|e| &e.outputs).filter_map(|t| t.node.as_ref());
        let mut nodes: Vec<&Arc<Node>> = self.kept.iter().map(|k| &k.node).chain(outputs).collect();
        nodes.sort_by_key(|n| n.id); // what a node was made from is older
        for node in nodes {
            if inputs_of(node).any(|n| found.contains(&n.id)) {
                found.insert(node.id);
            }
        }
        found
    }

    fn find_overwritten(&mut self) {
        let mut by_address: HashMap<usize, Vec<Arc<Value>>> = HashMap::new();
        let mut seen = HashSet::new();
        for t in self.events.iter().flat_map(|e| &e.outputs).filter(|t| seen.insert(address_of(&t.value))) {
            by_address.entry(t.value.buffer.address()).or_default().push(t.value.clone());
        }
        for i in 0..self.events.len() {
            let mut values: Vec<Arc<Value>> = Vec::new();
            if let Effect::Write(addresses) = &self.events[i].effect {
                for address in addresses {
                    values.extend(by_address.get(address).into_iter().flatten().cloned());
                    values.extend(self.graphs_with(*address, i));
                }
            } else {
                // The first call that gives memory is the one that writes it; later ones give views of it.
                let own = self.events[i].outputs.iter().filter(|t| !self.aliases.contains(&address_of(&t.value)));
                let addresses: Vec<usize> = own.map(|t| t.value.buffer.address()).collect();
                addresses.iter().for_each(|a| values.extend(by_address.remove(a).unwrap_or_default()));
            }
            self.events[i].alone = values.into_iter().map(|value| Held { value, values: 0, buffers: 0 }).collect();
        }
    }

    /// What hangs on a call that has saved outside memory at `address` and is not walked when call `at` writes there. Whoever
    /// held that memory by rights would make the update take a copy; the record does not count as a holder, so nobody may hold these.
    fn graphs_with(&self, address: usize, at: usize) -> Vec<Arc<Value>> {
        let saves = |k: &Kept| k.values().any(|v| v.buffer.address() == address);
        // What is made after the update, and still to be walked then, is the last step's.
        let waits = |k: &Kept| k.freed.is_none_or(|f| k.made < at && f > at);
        let live: HashSet<u64> = self.kept.iter().filter(|k| saves(k) && waits(k)).map(|k| k.node.id).collect();
        if live.is_empty() {
            return Vec::new();
        }
        let hangs = self.hanging_on(live);
        let outputs = self.events.iter().flat_map(|e| &e.outputs);
        outputs.filter(|t| t.node.as_ref().is_some_and(|n| hangs.contains(&n.id))).map(|t| t.value.clone()).collect()
    }

    fn count(&mut self) {
        let (mut values, mut buffers): (HashMap<usize, usize>, HashMap<usize, HashSet<usize>>) = Default::default();
        let mut holds = |v: &Arc<Value>| {
            *values.entry(address_of(v)).or_default() += 1;
            buffers.entry(Arc::as_ptr(&v.buffer).cast::<()>().addr()).or_default().insert(address_of(v));
        };
        for e in &self.events {
            e.outputs.iter().for_each(|t| holds(&t.value));
            e.alone.iter().for_each(|h| holds(&h.value));
        }
        for k in &self.kept {
            k.values().for_each(&mut holds);
            if let Some(saved) = k.node.saved(true) {
                values_of(&saved).for_each(&mut holds);
            }
        }
        for held in self.events.iter_mut().flat_map(|e| &mut e.alone) {
            held.values = values[&address_of(&held.value)];
            held.buffers = buffers[&Arc::as_ptr(&held.value.buffer).cast::<()>().addr()].len();
        }
    }

    /// Whether nobody outside holds the inputs' memory, but for these, which go with the record. Outputs are values that the record
    /// does not hold.
    pub(super) fn holds_inputs_alone(&self, inputs: &[Tensor], outputs: &[Tensor]) -> bool {
        let held = self.events.first().into_iter().flat_map(|e| &e.alone);
        held.into_iter().all(|h| {
            let listed = inputs.iter().chain(outputs).filter(|t| Arc::ptr_eq(&t.value, &h.value)).count();
            let views = outputs.iter().filter(|t| Arc::ptr_eq(&t.value.buffer, &h.value.buffer));
            let own = |t: &&Tensor| inputs.iter().any(|x| Arc::ptr_eq(&x.value, &t.value));
            let views: HashSet<usize> = views.filter(|t| !own(t)).map(|t| address_of(&t.value)).collect();
            h.is_alone_but(listed, views.len())
        })
    }

    /// For the flat form: an error if somebody holds what replays would change.
    pub(super) fn check_held(&self, outputs: &[Tensor]) -> Result<()> {
        let n = self.made.iter().filter(|m| m.is_held_but(outputs)).count();
        if n == 0 {
            return Ok(());
        }
        Err(Error::misuse(format!(
            "{n} tensors made in the recorded step are still held after it, and a replay would change them: return them, or drop them in the step (gradients: `take_grad`, `zero_grad`)"
        )))
    }

    /// For the flat form: whether what the step uses from outside is still there, and what it updates is held by nobody else.
    pub(super) fn sees_the_same(&self) -> bool {
        self.outside.iter().all(|o| match o.value.upgrade() {
            None => false,
            Some(value) if o.updated => Arc::strong_count(&value) == 2 && Arc::strong_count(&value.buffer) == 1,
            Some(_) => true,
        })
    }

    /// Stops watching outside values: a watched one is not written in place.
    pub(super) fn unwatch(&mut self) {
        self.outside.iter_mut().for_each(|o| o.value = Weak::new());
    }

    /// Watches what a newer record watches at the same places; whether that is all that this one used. A guarded record compares
    /// places itself.
    pub(super) fn watch_as(&mut self, newer: &Record) -> bool {
        if !self.flat {
            return true;
        }
        self.outside.iter_mut().all(|o| {
            let same = newer.outside.iter().find(|n| n.address == o.address);
            o.value = same.map_or(Weak::new(), |n| n.value.clone());
            same.is_some()
        })
    }

    /// Gives what calls before `at` saved back to those nodes whose later walk freed it. Memory from outside is copied, since
    /// the record does not hold it.
    pub(super) fn restore(&mut self, at: usize) -> Result<()> {
        let mut copies: HashMap<usize, Arc<Value>> = HashMap::new();
        for k in self.kept.iter().filter(|k| k.made < at && k.freed.is_some_and(|f| f >= at)) {
            let mut own = |v: &Arc<Value>| -> Result<Arc<Value>> {
                if !self.aliases.contains(&address_of(v)) {
                    return Ok(v.clone());
                }
                if let Some(copy) = copies.get(&address_of(v)) {
                    return Ok(copy.clone());
                }
                let copy = Arc::new(whole_copy(self.device, v)?);
                copies.insert(address_of(v), copy.clone());
                Ok(copy)
            };
            let saved = k.saved.map(&mut own)?;
            k.node.put_saved(saved);
        }
        Ok(())
    }
}

/// A copy with the same layout, so that kernels take the same paths and give the same bits.
fn whole_copy(device: Device, v: &Value) -> Result<Value> {
    let reach = |(&d, &s): (&usize, &isize)| d.saturating_sub(1) * s.max(0).unsigned_abs();
    let n = 1 + v.layout.offset() + v.layout.shape().dims().iter().zip(v.layout.strides()).map(reach).sum::<usize>();
    let n = if v.layout.elements() == 0 { 0 } else { n };
    let layout = Layout::dense(crate::Shape::try_new(&[n])?);
    let buffer = device.backend().copy(View { buffer: &v.buffer, layout: &layout, dtype: v.dtype })?;
    Ok(Value::new(buffer, v.layout, v.dtype, v.device()))
}
