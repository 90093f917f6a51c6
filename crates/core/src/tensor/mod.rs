//! The tensor: a value and where it came from.

mod create;
mod display;
mod index;
mod inplace;
mod operators;
mod read;

pub(crate) use create::from_f64;
pub use create::permutation;
pub use index::{IntoSlice, SliceSpec};
pub use inplace::{Update, UpdateCall, copies_on_write};
pub use operators::Number;
pub use read::{TensorData, to_device};

use crate::autodiff::{HookHandle, Node};
use crate::backend::{Buffer, View};
use crate::capture::{self, Ask, Effect};
use crate::device::{Device, Place};
use crate::dtype::DType;
use crate::error::{Error, Result, or_raise};
use crate::layout::Layout;
use crate::op::Meta;
use crate::shape::Shape;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// A multi-dimensional array on a device, and, if it is tracked, where it came from.
///
/// Cloning is cheap (two pointers) and shares the elements; they never change under a holder. Views (reshape, permute, slice,
/// expand, flip) share them too. Any thread may hold and use a tensor.
#[derive(Clone)]
pub struct Tensor {
    pub(crate) value: Arc<Value>,
    pub(crate) node: Option<Arc<Node>>,
}

/// A tensor's elements: memory, layout, type and device.
#[derive(Debug)]
pub struct Value {
    pub(crate) buffer: Held,
    pub(crate) layout: Layout,
    pub(crate) dtype: DType,
}

/// [`Value::dense`] writes each of these: one more does not compile here before it is written there.
const _: fn(&Value) = |Value { buffer: _, layout: _, dtype: _ }| {};

impl Value {
    #[inline(always)]
    pub(crate) fn new(buffer: Buffer, layout: Layout, dtype: DType, device: Device) -> Value {
        Value { buffer: Held { buffer: ManuallyDrop::new(buffer), device }, layout, dtype }
    }
    /// A dense one, written where it stays, part by part: moved there as a whole, it would be read in words wider than those just
    /// written, and wait for them.
    #[inline(always)]
    pub(crate) fn dense(buffer: Buffer, meta: &Meta, device: Device) -> Arc<Value> {
        let value = Arc::<Value>::new_uninit();
        let place = Arc::as_ptr(&value).cast::<Value>().cast_mut();
        // SAFETY: nobody else holds what was just made, and each of its fields is written.
        unsafe {
            (&raw mut (*place).buffer).write(Held { buffer: ManuallyDrop::new(buffer), device });
            Layout::write_dense(&raw mut (*place).layout, &meta.shape);
            (&raw mut (*place).dtype).write(meta.dtype);
            value.assume_init()
        }
    }
    #[inline]
    pub(crate) fn meta(&self) -> Meta {
        Meta { dtype: self.dtype, shape: *self.layout.shape() }
    }
    #[inline]
    pub(crate) fn device(&self) -> Device {
        self.buffer.device
    }
}

/// A value's memory, which goes back to its device in the end: that may keep what nobody else holds, as it is, for the next.
#[derive(Debug)]
pub(crate) struct Held {
    buffer: ManuallyDrop<Buffer>,
    device: Device,
}

impl Drop for Held {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: taken here alone, where nobody can ask for it any more.
        let buffer = unsafe { ManuallyDrop::take(&mut self.buffer) };
        self.device.backend().release(buffer);
    }
}

impl Deref for Held {
    type Target = Buffer;
    #[inline]
    fn deref(&self) -> &Buffer {
        &self.buffer
    }
}
impl DerefMut for Held {
    #[inline]
    fn deref_mut(&mut self) -> &mut Buffer {
        &mut self.buffer
    }
}

/// The call that makes a leaf, in a record.
#[derive(Debug)]
struct Leaf;

impl Tensor {
    pub(crate) fn from_value(value: Arc<Value>) -> Tensor {
        Tensor { value, node: None }
    }

    /// A tensor over a backend's buffer, dense and row-major. For backends and kernels.
    pub fn from_buffer(buffer: Buffer, shape: Shape, place: Place) -> Tensor {
        Tensor::from_value(Value::dense(buffer, &Meta::new(place.dtype, shape), place.device))
    }

    /// The lengths of the dimensions, outermost first.
    #[inline]
    pub fn shape(&self) -> &Shape {
        self.value.layout.shape()
    }
    /// The lengths of the dimensions as a slice.
    #[inline]
    pub fn dims(&self) -> &[usize] {
        self.value.layout.shape().dims()
    }
    /// Number of dimensions.
    #[inline]
    pub fn rank(&self) -> usize {
        self.shape().rank()
    }
    /// Length of dimension `dim`, counted from the end if negative. Panics at the caller's line if there is none.
    #[track_caller]
    pub fn dim(&self, dim: isize) -> usize {
        self.shape()[or_raise(self.shape().dim(dim))]
    }
    /// Number of elements.
    #[inline]
    pub fn elements(&self) -> usize {
        self.shape().elements()
    }
    /// The elements' type.
    #[inline]
    pub fn dtype(&self) -> DType {
        self.value.dtype
    }
    /// The device it lives on.
    #[inline]
    pub fn device(&self) -> Device {
        self.value.device()
    }
    /// Device and dtype, as constructors take them.
    pub fn place(&self) -> Place {
        Place { device: self.device(), dtype: self.dtype() }
    }
    /// Dtype and shape.
    #[inline]
    pub fn meta(&self) -> Meta {
        self.value.meta()
    }
    /// Where its elements lie.
    pub fn layout(&self) -> &Layout {
        &self.value.layout
    }
    /// Whether its elements lie one after another, row-major.
    #[inline]
    pub fn is_dense(&self) -> bool {
        self.value.layout.is_dense()
    }
    /// The tensor as backends see it.
    #[inline]
    pub fn view(&self) -> View<'_> {
        View { buffer: &self.value.buffer, layout: &self.value.layout, dtype: self.value.dtype }
    }
    /// Whether both show the same memory, element for element.
    pub fn is_same(&self, other: &Tensor) -> bool {
        Arc::ptr_eq(&self.value.buffer, &other.value.buffer) && self.value.layout == other.value.layout
    }

    /// This value as a leaf: gradients of what is made from it gather in it ([`Tensor::grad`]).
    ///
    /// Panics at the caller's line if the dtype carries no gradient (integers, `bool`).
    #[track_caller]
    pub fn requires_grad(&self) -> Tensor {
        or_raise(self.try_requires_grad())
    }
    /// As [`requires_grad`](Self::requires_grad), with misuse returned as an error.
    #[track_caller]
    pub fn try_requires_grad(&self) -> Result<Tensor> {
        if !self.dtype().is_float() {
            return Err(Error::misuse(format!(
                "requires_grad: only floating-point tensors have gradients; this one is {}",
                self.dtype()
            )));
        }
        let leaf = || Tensor { value: self.value.clone(), node: Some(Node::leaf(&self.value)) };
        match capture::ask(&Leaf, &[self]) {
            Ask::Eager | Ask::Define => Ok(leaf()),
            Ask::Done(outputs) => outputs?.pop().ok_or_else(|| Error::misuse("a record gave no tensor")),
            Ask::Note(note) => {
                let leaf = leaf();
                note.gave(std::slice::from_ref(&leaf), Effect::Leaf);
                Ok(leaf)
            }
        }
    }
    /// The same value, cut off from where it came from.
    pub fn detach(&self) -> Tensor {
        Tensor { value: self.value.clone(), node: None }
    }
    /// Whether operations on it are recorded: it is a leaf, or was made from one.
    pub fn is_tracked(&self) -> bool {
        self.node.is_some()
    }
    /// Whether gradients gather in it.
    pub fn is_leaf(&self) -> bool {
        self.node.as_ref().is_some_and(|n| n.is_leaf())
    }
    /// The gradient gathered in this leaf so far; `None` if it is no leaf or none arrived.
    pub fn grad(&self) -> Option<Tensor> {
        self.node.as_ref().and_then(|n| n.gathered())
    }
    /// Takes the gradient out of this leaf, which then has none.
    pub fn take_grad(&self) -> Option<Tensor> {
        self.node.as_ref().and_then(|n| n.set_gathered(None))
    }
    /// Forgets the gradient gathered in this leaf.
    pub fn zero_grad(&self) {
        self.take_grad();
    }
    /// Puts a gradient into this leaf in place of the gathered one; it must have the leaf's shape and dtype.
    pub fn set_grad(&self, grad: Tensor) -> Result<()> {
        let Some(node) = self.node.as_ref().filter(|n| n.is_leaf()) else {
            return Err(Error::misuse("set_grad: this tensor is not a leaf"));
        };
        if grad.meta() != self.meta() {
            return Err(Error::misuse(format!(
                "set_grad: the gradient is {} {}, the leaf {} {}",
                grad.dtype(),
                grad.shape(),
                self.dtype(),
                self.shape()
            )));
        }
        node.set_gathered(Some(grad));
        Ok(())
    }
    /// Calls `hook` with this tensor's gradient whenever a backward walk completes it; what it gives replaces the gradient.
    ///
    /// Panics at the caller's line if the tensor is not tracked.
    #[track_caller]
    pub fn register_hook(&self, hook: impl Fn(&Tensor) -> Option<Tensor> + Send + Sync + 'static) -> HookHandle {
        match &self.node {
            Some(node) => HookHandle::new(node.clone(), Box::new(hook)),
            None => {
                crate::error::raise(Error::misuse("register_hook: the tensor is not tracked, so it has no gradient"))
            }
        }
    }
    /// The name of the op that made it: `leaf` for a leaf, `None` if it is not tracked.
    pub fn made_by(&self) -> Option<&'static str> {
        self.node.as_ref().map(|n| n.made_by())
    }
}
