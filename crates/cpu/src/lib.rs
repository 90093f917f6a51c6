//! The CPU backend: threads of its own, SIMD chosen at run time, a pool of buffers, and one doorway ([`launch`](self)) that every
//! kernel runs through.
//!
//! | for | see |
//! |---|---|
//! | the device | [`device`] |
//! | how many threads | [`threads`], [`set_threads`], [`with_threads`], `GRADUS_THREADS` |
//! | memory that waits for reuse | [`trim`] |
//! | kernels | a file a family: `elementwise`, `reduce`, `matmul`, `index`, `random`; fused ones: `softmax`, `norm`, … |
//!
//! Every kernel cuts its work by shape alone, so results have the same bits for any number of threads.

mod activation;
mod attention;
mod batch_norm;
mod bf16_matmul;
mod conv;
mod crew;
mod dense;
mod dropout;
mod elementwise;
mod group_norm;
mod index;
mod lanes;
mod launch;
mod lerp;
mod linear;
mod loss;
mod lstm;
mod many_rows;
mod math;
mod matmul;
mod memory;
mod newton_schulz;
mod norm;
mod panel;
mod pool;
mod processor;
mod product;
mod random;
mod recurrent;
mod reduce;
mod rms_norm;
mod room;
mod rotary;
mod rows_by_rows;
mod simd;
mod small_matmul;
mod softmax;
mod special;
mod strided;
mod swiglu;
mod tall;
mod threads;
mod unary_grad;
mod update;
mod vector;

pub use memory::{CpuStorage, trim};
pub use simd::{Level, level};
pub use threads::{set_threads, threads, with_threads};

use gradus_core::backend::{Backend, Dims, MatmulSpec, MemoryReport, Ones, Operand, Replay, View, WriteMode};
use gradus_core::composite::KernelTable;
use gradus_core::ops::{ArgReduceOp, BinaryOp, CompareOp, Index, ReduceOp, ScanOp, ScatterOp, UnaryOp};
use gradus_core::rng::{Distribution, Key};
use gradus_core::{Buffer, DType, Device, Element, Error, ErrorKind, Layout, Result, Scalar};
use std::sync::OnceLock;

/// The CPU of this machine.
pub fn device() -> Device {
    static CPU: OnceLock<Cpu> = OnceLock::new();
    Device::new(CPU.get_or_init(|| Cpu::new("cpu")))
}

/// Further devices on the same processor: `cpu:1` to `cpu:7`; number 0 is [`device`]. They have its speed, its threads and its memory, and
/// tensors move between them as between any two devices: they are there to try what several devices do where there is one.
pub fn nth(index: usize) -> Result<Device> {
    static MORE: [OnceLock<Cpu>; 7] = [const { OnceLock::new() }; 7];
    const NAMES: [&str; 7] = ["cpu:1", "cpu:2", "cpu:3", "cpu:4", "cpu:5", "cpu:6", "cpu:7"];
    match index.checked_sub(1) {
        None => Ok(device()),
        Some(i) if i < MORE.len() => Ok(Device::new(MORE[i].get_or_init(|| Cpu::new(NAMES[i])))),
        Some(_) => {
            Err(Error::new(ErrorKind::Device, format!("the CPU's devices are cpu:0 to cpu:7; there is no cpu:{index}")))
        }
    }
}

/// The CPU backend, behind [`device`] and [`nth`].
#[derive(Debug)]
struct Cpu {
    name: &'static str,
    kernels: KernelTable,
    ones: Ones,
}

impl Cpu {
    fn new(name: &'static str) -> Cpu {
        let kernels = KernelTable::new();
        attention::register(&kernels);
        batch_norm::register(&kernels);
        conv::register(&kernels);
        dropout::register(&kernels);
        elementwise::chain::register(&kernels);
        group_norm::register(&kernels);
        lerp::register(&kernels);
        linear::register(&kernels);
        loss::register(&kernels);
        lstm::register(&kernels);
        newton_schulz::register(&kernels);
        norm::register(&kernels);
        pool::register(&kernels);
        recurrent::register(&kernels);
        reduce::register(&kernels);
        rms_norm::register(&kernels);
        rotary::register(&kernels);
        softmax::register(&kernels);
        special::register(&kernels);
        swiglu::register(&kernels);
        unary_grad::register(&kernels);
        update::register(&kernels);
        Cpu { name, kernels, ones: Ones::default() }
    }
}

impl Backend for Cpu {
    fn name(&self) -> &str {
        self.name
    }
    fn supports(&self, _dtype: DType) -> bool {
        true
    }
    fn memory(&self) -> MemoryReport {
        memory::report()
    }
    fn kernels(&self) -> &KernelTable {
        &self.kernels
    }
    fn ones(&self) -> &Ones {
        &self.ones
    }
    fn upload(&self, dtype: DType, bytes: &[u8]) -> Result<Buffer> {
        let to = CpuStorage::new(bytes.len())?;
        launch::upload(&to, dtype, bytes);
        elementwise::finish(to)
    }
    fn upload_pieces(&self, dtype: DType, pieces: &[&[u8]]) -> Result<Buffer> {
        let to = CpuStorage::new(pieces.iter().map(|p| p.len()).sum())?;
        launch::upload_pieces(&to, dtype, pieces);
        elementwise::finish(to)
    }
    fn host_bytes<'a>(&self, x: View<'a>) -> Option<&'a [u8]> {
        let (start, n) = (x.layout.offset() * x.dtype.size(), x.elements() * x.dtype.size());
        let s = launch::storage(x.buffer).ok().filter(|_| x.layout.is_dense())?;
        s.content().get(start..start + n)
    }
    fn download(&self, x: View<'_>, out: &mut [u8]) -> Result<()> {
        let n = x.elements() * x.dtype.size();
        if out.len() != n {
            return Err(Error::misuse(format!("a read-back of {n} bytes was given room for {}", out.len())));
        }
        if let Some(bytes) = self.host_bytes(x) {
            out.copy_from_slice(bytes);
            return Ok(());
        }
        let made = elementwise::copy(x)?;
        out.copy_from_slice(&launch::storage(&made)?.content()[..n]);
        Ok(())
    }
    fn release(&self, buffer: Buffer) {
        memory::release(buffer);
    }
    fn empty(&self, elements: usize, dtype: DType) -> Result<Buffer> {
        elementwise::finish(CpuStorage::new(elements * dtype.size())?)
    }
    fn fill(&self, elements: usize, dtype: DType, value: &Scalar) -> Result<Buffer> {
        let value = value.clone();
        let to = CpuStorage::new(elements * dtype.size())?;
        elementwise::with_dtype!(dtype, T => {
            let out = launch::Out::<T>::of(&to);
            let (float, bool) = (dtype.is_float(), dtype == DType::Bool);
            launch::launch(&[], &[&to], move || {
                let v: T = if bool { Element::from_i64((value.to_f64() != 0.0) as i64) } else if float { Element::from_f64(value.to_f64()) } else { Element::from_i64(value.to_i64()) };
                threads::for_ranges(elements, 1 << 16, 100, |start, len| out.part(start, len).fill(v));
            });
        });
        elementwise::finish(to)
    }
    fn copy(&self, x: View<'_>) -> Result<Buffer> {
        elementwise::copy(x)
    }
    fn cast(&self, x: View<'_>, to: DType) -> Result<Buffer> {
        elementwise::cast(x, to)
    }
    fn write(&self, dst: &mut Buffer, at: &Layout, src: View<'_>, mode: WriteMode) -> Result<()> {
        elementwise::write(dst, at, src, mode)
    }
    fn random(&self, distribution: Distribution, key: &Key, elements: usize, dtype: DType) -> Result<Buffer> {
        random::random(distribution, key, elements, dtype)
    }
    fn unary(&self, op: UnaryOp, x: View<'_>) -> Result<Buffer> {
        elementwise::unary(op, x)
    }
    fn binary(&self, op: BinaryOp, a: Operand<'_>, b: Operand<'_>) -> Result<Buffer> {
        elementwise::binary(op, a, b)
    }
    fn compare(&self, op: CompareOp, a: Operand<'_>, b: Operand<'_>) -> Result<Buffer> {
        elementwise::compare(op, a, b)
    }
    fn select(&self, condition: View<'_>, a: View<'_>, b: View<'_>) -> Result<Buffer> {
        elementwise::select(condition, a, b)
    }
    fn reduce(&self, op: ReduceOp, x: View<'_>, dims: Dims) -> Result<Buffer> {
        reduce::reduce(op, x, dims)
    }
    fn arg_reduce(&self, op: ArgReduceOp, x: View<'_>, dim: usize) -> Result<Buffer> {
        reduce::arg_reduce(op, x, dim)
    }
    fn scan(&self, op: ScanOp, x: View<'_>, dim: usize) -> Result<Buffer> {
        reduce::scan(op, x, dim)
    }
    fn argsort(&self, x: View<'_>, dim: usize, descending: bool) -> Result<Buffer> {
        reduce::argsort(x, dim, descending)
    }
    fn matmul(&self, a: View<'_>, b: View<'_>, spec: &MatmulSpec<'_>) -> Result<Buffer> {
        matmul::matmul(a, b, spec)
    }
    fn gather(&self, x: View<'_>, index: View<'_>, how: Index) -> Result<Buffer> {
        index::gather(x, index, how)
    }
    fn scatter(&self, op: ScatterOp, base: View<'_>, index: View<'_>, src: View<'_>, how: Index) -> Result<Buffer> {
        index::scatter(op, base, index, src, how)
    }
    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
    fn begin_capture(&self) -> Result<()> {
        launch::begin()
    }
    fn capture_call(&self, passing: bool) -> usize {
        launch::call(passing)
    }
    fn capture_bytes(&self) -> usize {
        launch::arena().map_or(0, |a| a.bytes())
    }
    fn capture_alias(&self, buffer: &Buffer) -> Result<Option<Buffer>> {
        launch::alias(buffer)
    }
    fn end_capture(&self) -> Result<Box<dyn Replay>> {
        launch::end()
    }
}
