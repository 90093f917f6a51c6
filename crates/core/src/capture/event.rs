//! What a record holds of one call, and how a call is compared with it.

use crate::autodiff::{Node, is_grad_enabled};
use crate::composite::is_defined_only;
use crate::layout::Layout;
use crate::op::Tensors;
use crate::precision::precision;
use crate::tensor::{Tensor, Value};
use crate::{DType, Device};
use std::any::TypeId;
use std::fmt::{self, Debug, Write};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// A call, as a doorway describes it.
pub(crate) struct Asked<'a> {
    /// The op's type.
    pub kind: TypeId,
    /// Its attributes: all of them, as `Debug` writes them. Numbers are written exactly; a `Slot` is written as the cell it is.
    pub text: &'a dyn Debug,
    pub x: &'a [&'a Tensor],
}

/// One recorded call.
pub(super) struct Event {
    pub kind: TypeId,
    pub text: Box<str>,
    pub modes: u8,
    pub inputs: Box<[Source]>,
    /// What a replay hands out: always the same tensors, whose elements its kernels write anew.
    pub outputs: Tensors,
    pub kernels: Range<usize>,
    pub effect: Effect,
    /// What the kernels overwrite, and by how many the record itself holds it: nobody else may.
    pub alone: Vec<Held>,
}

/// What a call does besides giving tensors.
pub(crate) enum Effect {
    None,
    /// It is a composite that ran by its definition, whose calls follow.
    Define,
    /// It makes a leaf, which begins without a gradient.
    Leaf,
    /// Its output's elements come from the host.
    Upload,
    /// Its outputs are the gradients of these leaves.
    Gather(Vec<Gather>),
    /// Its outputs are the gradients asked for: which of them there are.
    Find(Vec<bool>),
    /// It writes these addresses in place.
    Write(Vec<usize>),
}

/// A leaf that a backward walk reached, and which value its gradient was before (by address).
pub(crate) struct Gather {
    pub leaf: Arc<Node>,
    pub before: Option<usize>,
}

/// A value, and how many hold it and its buffer when nobody outside the record does.
pub(super) struct Held {
    pub value: Arc<Value>,
    pub values: usize,
    pub buffers: usize,
}

impl Held {
    /// Whether so many outside the record hold the value, so many other values there its memory, and nobody else.
    pub fn is_alone_but(&self, holders: usize, views: usize) -> bool {
        Arc::strong_count(&self.value) == self.values + holders
            && Arc::strong_count(&self.value.buffer) == self.buffers + views
    }
    pub fn is_alone(&self) -> bool {
        self.is_alone_but(0, 0)
    }
}

/// Where an input comes from.
pub(super) enum Source {
    /// An earlier call of the step: the value and node, by address. The record holds both, so no other can have their addresses.
    Inside { value: usize, node: usize },
    /// Memory that was there before, and how it is looked at. The record keeps the memory from being handed out again, so what
    /// lies at this address is the same memory, though its elements may have changed since.
    Outside { address: usize, layout: Box<Layout>, dtype: DType, device: Device, node: Option<Arc<Node>> },
}

pub(super) fn address_of(value: &Arc<Value>) -> usize {
    Arc::as_ptr(value).addr()
}

fn node_of(t: &Tensor) -> usize {
    t.node.as_ref().map_or(0, |n| Arc::as_ptr(n).addr())
}

impl Source {
    pub fn inside(t: &Tensor) -> Source {
        Source::Inside { value: address_of(&t.value), node: node_of(t) }
    }
    pub fn outside(t: &Tensor) -> Source {
        Source::Outside {
            address: t.value.buffer.address(),
            layout: Box::new(t.value.layout),
            dtype: t.dtype(),
            device: t.device(),
            node: t.node.clone(),
        }
    }
    #[inline]
    fn is(&self, t: &Tensor) -> bool {
        match self {
            Source::Inside { value, node } => *value == address_of(&t.value) && *node == node_of(t),
            Source::Outside { address, layout, dtype, device, node } => {
                *address == t.value.buffer.address()
                    && node.as_ref().map_or(0, |n| Arc::as_ptr(n).addr()) == node_of(t)
                    && *dtype == t.dtype()
                    && *device == t.device()
                    && **layout == t.value.layout
            }
        }
    }
}

/// The modes of this thread that say what a call does.
pub(super) fn modes() -> u8 {
    is_grad_enabled() as u8 | (is_defined_only() as u8) << 1 | (precision() as u8) << 2
}

impl Event {
    /// Why the call is not this one, if it is not.
    pub fn differs(&self, call: &Asked<'_>) -> Option<&'static str> {
        if self.kind != call.kind || self.modes != modes() {
            return Some("another call came");
        }
        if self.inputs.len() != call.x.len() || !self.inputs.iter().zip(call.x).all(|(s, t)| s.is(t)) {
            return Some("it came with other inputs");
        }
        let mut rest = Rest(self.text.as_bytes());
        if write!(rest, "{:?}", call.text).is_err() || !rest.0.is_empty() {
            return Some("it came with other attributes");
        }
        if !self.alone.iter().all(Held::is_alone) {
            return Some("somebody holds what it gave before");
        }
        fence(Ordering::Acquire); // what another thread read while it held a value comes before what is written now
        match &self.effect {
            Effect::Gather(leaves) if !leaves.iter().all(Gather::is_as_before) => {
                Some("other gradients were gathered before")
            }
            _ => None,
        }
    }
}

impl Gather {
    fn is_as_before(&self) -> bool {
        self.leaf.gathered().map(|t| address_of(&t.value)) == self.before
    }
}

/// What of a recorded text is still to come: text is compared while it is written, and never stored.
struct Rest<'a>(&'a [u8]);

impl Write for Rest<'_> {
    #[inline]
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(s.as_bytes()).ok_or(fmt::Error)?;
        Ok(())
    }
}
