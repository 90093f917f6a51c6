//! What a device must do: the [`Backend`] trait.
//!
//! About twenty required families, each taking an enum of ops. Fused kernels live in a table ([`KernelTable`]), not in the
//! trait: a device without one runs the composite's definition. A third party adds a device by implementing this trait in
//! a crate of its own; core names none.
//!
//! Contract of every family: the views' layouts lie inside their buffers (core checks them); the result is a new, dense,
//! row-major buffer that nothing else refers to; operands of one call have one dtype, unless a method says otherwise, and
//! elementwise operands have the same shape (core broadcasts by stride 0).

use crate::composite::KernelTable;
use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::op::Meta;
use crate::ops::{ArgReduceOp, BinaryOp, CompareOp, Index, ReduceOp, ScanOp, ScatterOp, UnaryOp};
use crate::rng::{Distribution, Key};
use crate::scalar::Scalar;
use crate::shape::{MAX_RANK, Shape};
use crate::tensor::Value;
use std::any::Any;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// Memory on a device, opaque to core; the backend that made it downcasts it.
pub trait Storage: Any + Debug + Send + Sync {
    /// The storage as its own type.
    fn as_any(&self) -> &dyn Any;
    /// The storage as its own type, to be written to by its only owner.
    fn as_any_mut(&mut self) -> &mut dyn Any;
    /// Tells its memory apart from every other memory that is alive: where the memory lies. Equal for storages that share it.
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

/// Shared memory on a device. It is written in place only by an owner who holds it alone.
pub type Buffer = Arc<dyn Storage>;

/// A buffer, where its elements lie, and what they are: how tensors are handed to a backend.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The memory.
    pub buffer: &'a Buffer,
    /// Where the elements lie in it.
    pub layout: &'a Layout,
    /// What they are.
    pub dtype: DType,
}

impl View<'_> {
    /// The view's shape.
    #[inline]
    pub fn shape(&self) -> &Shape {
        self.layout.shape()
    }
    /// Number of elements.
    #[inline]
    pub fn elements(&self) -> usize {
        self.layout.elements()
    }
}

/// An operand of an elementwise kernel: a tensor, or one number for all elements.
#[derive(Clone, Debug)]
pub enum Operand<'a> {
    /// A tensor.
    View(View<'a>),
    /// One number, of the other operand's dtype.
    Scalar(Scalar),
}

/// A set of dimensions of a tensor, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Dims(u8);

impl Dims {
    /// The first `rank` dimensions.
    pub fn all(rank: usize) -> Dims {
        Dims(((1u16 << rank.min(MAX_RANK)) - 1) as u8)
    }
    /// The set of these dimensions, counted from the end if negative; one named twice or out of range is an error.
    pub fn of(dims: &[isize], shape: &Shape) -> Result<Dims> {
        let mut set = Dims(0);
        for &d in dims {
            let i = shape.dim(d)?;
            if set.has(i) {
                return Err(Error::misuse(format!("dimension {d} is named twice in {dims:?}")));
            }
            set = set.with(i);
        }
        Ok(set)
    }
    /// This set and dimension `d`.
    pub fn with(self, d: usize) -> Dims {
        Dims(self.0 | 1 << d)
    }
    /// Whether `d` is in the set.
    #[inline]
    pub fn has(self, d: usize) -> bool {
        self.0 >> d & 1 == 1
    }
    /// Whether these are all of `rank` dimensions.
    #[inline]
    pub fn is_all(self, rank: usize) -> bool {
        self == Dims::all(rank)
    }
    /// The dimensions in the set, ascending.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..MAX_RANK).filter(move |&d| self.has(d))
    }
    /// `shape` with these dimensions of length 1.
    pub fn kept(self, shape: &Shape) -> Shape {
        let mut s = *shape;
        self.iter().for_each(|d| s[d] = 1);
        s
    }
    /// `shape` without these dimensions.
    pub fn dropped(self, shape: &Shape) -> Shape {
        if self.is_all(shape.rank()) {
            return Shape::SCALAR;
        }
        let mut s = *shape;
        for d in (0..shape.rank()).rev().filter(|&d| self.has(d)) {
            s = s.without(d);
        }
        s
    }
    /// How many elements of `shape` fall into one, when these dimensions are reduced.
    pub fn count(self, shape: &Shape) -> usize {
        self.iter().map(|d| shape[d]).product()
    }
}

/// Whether [`Backend::write`] replaces or adds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteMode {
    /// The old elements are replaced.
    Store,
    /// The new elements are added to the old ones.
    Add,
}

/// What else a matrix product does on its way out.
#[derive(Clone, Copy, Debug, Default)]
pub struct MatmulSpec<'a> {
    /// A bias `[n]`, added to each row of the product.
    pub bias: Option<View<'a>>,
    /// An activation applied last.
    pub activation: Option<UnaryOp>,
}

/// What a backend knows about its memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryReport {
    /// Held by live tensors.
    pub in_use: usize,
    /// The most that was ever in use.
    pub peak: usize,
    /// Taken from the system, in use or kept for reuse.
    pub reserved: usize,
}

/// A recorded list of kernels, or of calls that launch them, on fixed memory. See [`Backend::begin_capture`].
pub trait Replay: Send {
    /// Runs some of the kernels again, in order, on the memory they were recorded on.
    fn replay(&mut self, kernels: Range<usize>) -> Result<()>;
    /// Writes host bytes into a buffer that was made in the recording, as [`Backend::upload`] wrote the first ones.
    fn overwrite(&mut self, buffer: &Buffer, dtype: DType, bytes: &[u8]) -> Result<()>;
    /// How many kernels were recorded.
    fn kernels(&self) -> usize;
}

/// A scalar 1 of each dtype, which gradients start from: made when first wanted, and never written, as it is held here.
#[derive(Debug, Default)]
pub struct Ones([OnceLock<Arc<Value>>; DType::ALL.len()]);

impl Ones {
    pub(crate) fn get(&self, device: Device, dtype: DType) -> Result<Arc<Value>> {
        let one = &self.0[dtype as usize];
        if let Some(one) = one.get() {
            return Ok(one.clone());
        }
        let buffer = device.backend().fill(1, dtype, &Scalar::Int(1))?;
        let value = Value::dense(buffer, &Meta::new(dtype, Shape::SCALAR), device);
        Ok(one.get_or_init(|| value).clone())
    }
}

/// A device's kernels. See the [module](self) for the contract.
pub trait Backend: Debug + Send + Sync + 'static {
    /// The device's name as `Device::parse` takes it: `cpu`, `cuda:0`.
    fn name(&self) -> &str;
    /// Whether tensors of this dtype can live and be computed with here.
    fn supports(&self, dtype: DType) -> bool;
    /// What is known about the memory.
    fn memory(&self) -> MemoryReport;
    /// The fused kernels, by composite. Users may register theirs.
    fn kernels(&self) -> &KernelTable;
    /// Where gradients start from: the device's own, as it lives as long.
    fn ones(&self) -> &Ones;

    /// A buffer with the given host bytes, native-endian.
    fn upload(&self, dtype: DType, bytes: &[u8]) -> Result<Buffer>;
    /// As [`upload`](Backend::upload), of bytes that lie in pieces: one after another in the buffer, each a whole number of elements.
    fn upload_pieces(&self, dtype: DType, pieces: &[&[u8]]) -> Result<Buffer> {
        self.upload(dtype, &pieces.concat())
    }
    /// The view's elements where they lie, if that is the host's memory and they lie one after another.
    fn host_bytes<'a>(&self, _x: View<'a>) -> Option<&'a [u8]> {
        None
    }
    /// Takes the memory of a value that is no more. What nobody else holds may serve again as it is.
    fn release(&self, buffer: Buffer) {
        drop(buffer);
    }
    /// Writes the view's elements, row-major, to `out`, whose length is exactly theirs. Waits for the device.
    fn download(&self, x: View<'_>, out: &mut [u8]) -> Result<()>;
    /// A buffer of unspecified content, every element of which the caller writes before anyone reads it.
    fn empty(&self, elements: usize, dtype: DType) -> Result<Buffer>;
    /// A buffer with every element `value`.
    fn fill(&self, elements: usize, dtype: DType, value: &Scalar) -> Result<Buffer>;
    /// The view's elements made dense.
    fn copy(&self, x: View<'_>) -> Result<Buffer>;
    /// The view's elements in another dtype.
    fn cast(&self, x: View<'_>, to: DType) -> Result<Buffer>;
    /// Writes `src` into the places `at` of `dst`, which the caller holds alone.
    fn write(&self, dst: &mut Buffer, at: &Layout, src: View<'_>, mode: WriteMode) -> Result<()>;
    /// `elements` numbers drawn from `distribution` at `key`. See [`crate::rng`] for the exact bits.
    fn random(&self, distribution: Distribution, key: &Key, elements: usize, dtype: DType) -> Result<Buffer>;

    /// One function of each element.
    fn unary(&self, op: UnaryOp, x: View<'_>) -> Result<Buffer>;
    /// One function of two elements, in the operands' dtype.
    fn binary(&self, op: BinaryOp, a: Operand<'_>, b: Operand<'_>) -> Result<Buffer>;
    /// A comparison, giving `bool`.
    fn compare(&self, op: CompareOp, a: Operand<'_>, b: Operand<'_>) -> Result<Buffer>;
    /// `a` where the `bool` view `condition` holds, else `b`.
    fn select(&self, condition: View<'_>, a: View<'_>, b: View<'_>) -> Result<Buffer>;

    /// Reduces `dims` in a fixed order. The result's dtype is [`ReduceOp::dtype`].
    fn reduce(&self, op: ReduceOp, x: View<'_>, dims: Dims) -> Result<Buffer>;
    /// The place of an extreme along `dim`, the first of equals; `i64`.
    fn arg_reduce(&self, op: ArgReduceOp, x: View<'_>, dim: usize) -> Result<Buffer>;
    /// A cumulative reduction along `dim`.
    fn scan(&self, op: ScanOp, x: View<'_>, dim: usize) -> Result<Buffer>;
    /// The stable order that sorts `dim`; `i64`. NaN counts as the largest.
    fn argsort(&self, x: View<'_>, dim: usize, descending: bool) -> Result<Buffer>;

    /// `[.., m, k] × [.., k, n] → [.., m, n]`; both have the same leading dimensions.
    fn matmul(&self, a: View<'_>, b: View<'_>, spec: &MatmulSpec<'_>) -> Result<Buffer>;
    /// Elements of `x` picked along a dimension by `i64` indices, as `how` says. An index out of range is an error.
    fn gather(&self, x: View<'_>, index: View<'_>, how: Index) -> Result<Buffer>;
    /// `base` with the elements of `src` combined into the places that `gather` would pick. Deterministic: in the order of
    /// `src`, without atomics.
    fn scatter(&self, op: ScatterOp, base: View<'_>, index: View<'_>, src: View<'_>, how: Index) -> Result<Buffer>;

    /// Waits until all work handed over is done, and surfaces what went wrong since.
    fn synchronize(&self) -> Result<()>;

    /// From here on, kernels of this thread are recorded as well as run, on memory that the record keeps.
    fn begin_capture(&self) -> Result<()> {
        Err(Error::unsupported(format!("{} cannot record and replay kernels", self.name())))
    }
    /// Tells this thread's recording that another call begins; gives how many kernels were recorded so far. Memory that earlier
    /// calls gave back may serve this one only if it is `passing`: nothing that it makes outlives it, or the record is replayed as a
    /// whole only. So no call of a record that can be left in the middle writes where what a later one gave lies.
    fn capture_call(&self, _passing: bool) -> usize {
        0
    }
    /// How many bytes this thread's recording has taken so far.
    fn capture_bytes(&self) -> usize {
        0
    }
    /// A second handle to the memory of `buffer`, which does not count as a holder of it; `None` for memory of the recording
    /// itself. It must be read only while somebody else keeps the memory from changing.
    fn capture_alias(&self, _buffer: &Buffer) -> Result<Option<Buffer>> {
        Err(Error::unsupported(format!("{} cannot record and replay kernels", self.name())))
    }
    /// Ends the recording that this thread began.
    fn end_capture(&self) -> Result<Box<dyn Replay>> {
        Err(Error::unsupported(format!("{} cannot record and replay kernels", self.name())))
    }
}
