//! A step being recorded.
//!
//! The recorded step runs as it would anyway: what it frees is freed, what it may write in place it writes in place. Beside it the
//! record keeps each call's outputs, and what the calls saved for backward, so that a replay that meets another call can go on
//! eagerly from there. It must not count as a holder of memory from outside (parameters), which would then be copied when the
//! step updates it; so such memory is kept under a second handle (`Backend::capture_alias`).
//!
//! The flat form cannot be left in the middle, so its record keeps nothing of that: what the step frees serves its later calls, as it
//! does eagerly. It remembers what the calls gave only to find out whether somebody still holds it after the step.

use super::event::{Asked, Effect, Event, Gather, Source, address_of, modes};
use super::record::{Kept, Made, Outside, Record};
use crate::autodiff::{Node, inputs_of};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::op::Tensors;
use crate::tensor::{Tensor, Value};
use std::any::TypeId;
use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::{Arc, Weak};

struct Open {
    kind: TypeId,
    text: Box<str>,
    inputs: Box<[Source]>,
    first: usize,
}

pub(crate) struct Recorder {
    device: Device,
    flat: bool,
    events: Vec<Event>,
    open: Option<Open>,
    gathered: Vec<Gather>,
    /// What calls gave, by the address of the value. (Not views of outside memory, which are told by where that lies.)
    /// While it is named here, no other value comes to lie at the address.
    places: HashMap<usize, Weak<Value>>,
    /// Of the flat form.
    made: Vec<Made>,
    outside: HashMap<usize, Outside>,
    aliases: HashSet<usize>,
    kept: Vec<Kept>,
    nodes: HashSet<u64>,
    oldest: u64,
    /// Why this step gives no record.
    spoilt: Option<String>,
    /// What no step of the flat form may do.
    refused: Option<String>,
    /// How many bytes the record may take.
    limit: usize,
    outgrown: bool,
    ended: bool,
}

struct Inputs;

impl Recorder {
    /// Begins: the device records from here on.
    pub(super) fn begin(device: Device, inputs: &[Tensor], flat: bool, limit: usize) -> Result<Recorder> {
        device.backend().begin_capture()?;
        let mut new = Recorder {
            device,
            flat,
            events: Vec::new(),
            open: None,
            gathered: Vec::new(),
            places: HashMap::new(),
            made: Vec::new(),
            outside: HashMap::new(),
            aliases: HashSet::new(),
            kept: Vec::new(),
            nodes: HashSet::new(),
            oldest: Node::newest(),
            spoilt: None,
            refused: None,
            limit,
            outgrown: false,
            ended: false,
        };
        for t in inputs {
            new.places.insert(address_of(&t.value), Arc::downgrade(&t.value));
        }
        new.events.push(Event {
            kind: TypeId::of::<Inputs>(),
            text: "inputs".into(),
            modes: modes(),
            inputs: Box::default(),
            outputs: inputs.iter().cloned().collect(),
            kernels: 0..0,
            effect: Effect::None,
            alone: Vec::new(),
        });
        Ok(new)
    }

    pub(super) fn is_flat(&self) -> bool {
        self.flat
    }

    pub(super) fn spoil(&mut self, why: String) {
        self.spoilt.get_or_insert(why);
    }

    /// Whether the step takes too much memory to be recorded.
    pub(super) fn has_outgrown(&self) -> bool {
        self.outgrown
    }

    fn let_go(&mut self) {
        self.events.clear();
        self.kept.clear();
        self.places.clear();
        self.made.clear();
    }

    pub(super) fn refuse(&mut self, what: String) {
        self.refused.get_or_insert(what);
    }

    pub(super) fn open(&mut self, call: &Asked<'_>, passing: bool) {
        let first = self.device.backend().capture_call(passing || self.flat);
        let inputs = call.x.iter().map(|t| self.source(t)).collect();
        if passing {
            self.unwatch(call.x);
        }
        self.open = Some(Open { kind: call.kind, text: text_of(call.text), inputs, first });
    }

    fn source(&mut self, t: &Tensor) -> Source {
        if self.places.contains_key(&address_of(&t.value)) {
            return Source::inside(t);
        }
        let address = t.value.buffer.address();
        self.outside.entry(address).or_insert(Outside { address, value: Weak::new(), updated: false });
        self.watch(&[t]);
        Source::outside(t)
    }

    pub(super) fn close(&mut self, outputs: &[Tensor], effect: Effect) {
        let Some(Open { kind, text, inputs, first }) = self.open.take().filter(|_| self.spoilt.is_none()) else {
            return;
        };
        let mut kept = Tensors::new();
        if self.flat {
            self.remember(outputs);
        } else {
            for t in outputs {
                match self.keep(t) {
                    Ok(value) => kept.push(Tensor { value, node: t.node.clone() }),
                    Err(e) => self.spoil(e.to_string()),
                }
            }
        }
        if self.device.backend().capture_bytes() > self.limit {
            self.outgrown = true;
            self.spoil(format!("the step needs more than the {} MiB that a record may take", self.limit >> 20));
        }
        if self.spoilt.is_some() {
            return self.let_go(); // what was kept for nothing
        }
        if self.flat {
            return;
        }
        let made = self.events.len();
        outputs.iter().filter_map(|t| t.node.as_ref()).for_each(|n| self.keep_saved(n, made));
        let kernels = first..self.device.backend().capture_call(false);
        let event = Event { kind, text, modes: modes(), inputs, outputs: kept, kernels, effect, alone: Vec::new() };
        self.events.push(event);
        for k in self.kept.iter_mut().filter(|k| k.freed.is_none() && k.made < made) {
            k.freed = (!k.node.has_saved()).then_some(made);
        }
    }

    pub(super) fn gather(&mut self, gather: Gather) {
        if !self.gathered.iter().any(|g| Arc::ptr_eq(&g.leaf, &gather.leaf)) {
            self.gathered.push(gather);
        }
    }

    pub(super) fn close_backward(&mut self) {
        let leaves = std::mem::take(&mut self.gathered);
        let mut grads = Vec::new();
        for g in &leaves {
            if g.before.is_some_and(|before| !self.places.contains_key(&before)) {
                self.spoil("gradients were gathered before the step and added to in it".into());
            }
            match g.leaf.gathered() {
                Some(t) if !self.outside.contains_key(&t.value.buffer.address()) => grads.push(t),
                _ => self.spoil("a gradient is memory from outside the step".into()),
            }
        }
        self.close(&grads, Effect::Gather(leaves));
    }

    pub(super) fn close_update(&mut self, targets: usize, x: &[&Tensor]) {
        let addresses: Vec<usize> = x[..targets].iter().map(|t| t.value.buffer.address()).collect();
        for a in &addresses {
            match self.outside.get_mut(a) {
                Some(o) => o.updated = true,
                None => {
                    self.spoil("an update of a value that was made in the step, or that somebody else holds".into())
                }
            }
        }
        self.watch(x);
        self.close(&[], Effect::Write(addresses));
    }

    /// Watches values from outside. Only the flat form does: it does not see what the step's code uses.
    fn watch(&mut self, x: &[&Tensor]) {
        for t in x.iter().filter(|_| self.flat) {
            if let Some(o) = self.outside.get_mut(&t.value.buffer.address())
                && o.value.strong_count() == 0
            {
                o.value = Arc::downgrade(&t.value);
            }
        }
    }
    /// What is written in place must not be watched meanwhile.
    fn unwatch(&mut self, x: &[&Tensor]) {
        for t in x {
            if let Some(o) = self.outside.get_mut(&t.value.buffer.address()) {
                o.value = Weak::new();
            }
        }
    }

    /// The record's own value for an output.
    fn keep(&mut self, t: &Tensor) -> Result<Arc<Value>> {
        if self.outside.contains_key(&t.value.buffer.address()) {
            return self.own(&t.value);
        }
        self.places.insert(address_of(&t.value), Arc::downgrade(&t.value));
        Ok(t.value.clone())
    }

    /// What a call of the flat form gave, for as long as somebody else holds it. (Who holds the inputs' memory is asked before each replay.)
    fn remember(&mut self, outputs: &[Tensor]) {
        for t in outputs.iter().filter(|t| !self.outside.contains_key(&t.value.buffer.address())) {
            self.places.insert(address_of(&t.value), Arc::downgrade(&t.value));
            let inputs = self.events.first().map_or(&[][..], |e| &e.outputs);
            if !inputs.iter().any(|x| Arc::ptr_eq(&x.value.buffer, &t.value.buffer)) {
                self.made.push(Made::of(&t.value));
            }
        }
    }

    /// `value` itself if its memory is the recording's, else the same under a second handle.
    fn own(&mut self, value: &Arc<Value>) -> Result<Arc<Value>> {
        let Some(buffer) = self.device.backend().capture_alias(&value.buffer)? else { return Ok(value.clone()) };
        let alias = Arc::new(Value::new(buffer, value.layout, value.dtype, value.device()));
        self.aliases.insert(address_of(&alias));
        Ok(alias)
    }

    /// Keeps what the calls behind a node saved, back to the step's beginning.
    fn keep_saved(&mut self, node: &Arc<Node>, made: usize) {
        let mut stack = vec![node.clone()];
        while let Some(node) = stack.pop() {
            if node.id <= self.oldest || !self.nodes.insert(node.id) {
                continue;
            }
            stack.extend(inputs_of(&node).cloned());
            let Some(saved) = node.call_of().and_then(|_| node.saved(true)) else { continue };
            let mut own = |v: &Arc<Value>| match self.places.contains_key(&address_of(v)) {
                true => Ok(v.clone()),
                false => self.own(v),
            };
            match saved.map(&mut own) {
                Ok(saved) => self.kept.push(Kept { node, saved, made, freed: None }),
                Err(e) => self.spoil(e.to_string()),
            }
        }
    }

    /// Ends the recording; the reason if it gives no record.
    pub(super) fn end(mut self) -> Result<Result<Record, String>> {
        self.ended = true;
        let replay = self.device.backend().end_capture()?;
        if let Some(what) = self.refused.take() {
            return Err(Error::misuse(what));
        }
        if let Some(why) = self.spoilt.take() {
            return Ok(Err(why));
        }
        let mut record = Record {
            events: std::mem::take(&mut self.events),
            replay,
            kept: std::mem::take(&mut self.kept),
            aliases: std::mem::take(&mut self.aliases),
            device: self.device,
            flat: self.flat,
            outside: std::mem::take(&mut self.outside).into_values().collect(),
            made: std::mem::take(&mut self.made),
        };
        drop(self);
        Ok(if record.settle() { Ok(record) } else { Err("a graph that was made in the step outlives it".into()) })
    }
}

impl Drop for Recorder {
    /// After a panic in the step: the device must not go on recording.
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.device.backend().end_capture();
        }
    }
}

fn text_of(x: &dyn Debug) -> Box<str> {
    format!("{x:?}").into()
}
