//! The backend: one type for every runtime, and the families of the [`Backend`] trait.

use crate::DeviceInfo;
use crate::fault::{Site, Sites};
use crate::fused::Waiting;
use crate::memory::{GpuBuffer, Ledger, Memory};
use crate::pace::Pace;
use crate::profile;
use crate::runtime::{Fence, GpuRuntime};
use crate::strategies::{self, Strategies};
use crate::types::{Types, U32};
use cubecl::client::ComputeClient;
use cubecl::prelude::*;
use cubecl::server::{Handle, ServerError};
use cubecl::stream_id::StreamId;
use gradus_core::backend::{Dims, MatmulSpec, MemoryReport, Ones, Operand, Replay, WriteMode};
use gradus_core::composite::KernelTable;
use gradus_core::ops::{ArgReduceOp, BinaryOp, CompareOp, Index, ReduceOp, ScanOp, ScatterOp, UnaryOp};
use gradus_core::rng::{Distribution, Key};
use gradus_core::{Backend, Buffer, DType, Error, ErrorKind, Layout, Result, Scalar, View};
use gradus_kernels::copy::fill_kernel;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

/// A device of a runtime.
pub(crate) struct Gpu<R: GpuRuntime> {
    pub(crate) name: Arc<str>,
    /// What is launched goes through [`Gpu::client`], after the updates that wait.
    pub(crate) client: ComputeClient<R>,
    pub(crate) device: R::Device,
    pub(crate) types: Types,
    pub(crate) ledger: Arc<Ledger>,
    /// The words in which kernels note an index out of range.
    fault: Handle,
    sites: Sites,
    pace: Mutex<Pace<Fence>>,
    strategies: &'static RwLock<Strategies>,
    /// What went wrong while nobody was waiting.
    pending: Mutex<Option<Error>>,
    table: KernelTable,
    ones: Ones,
    pub(crate) updates: Waiting,
    /// Itself: what is recorded outlives the call.
    itself: OnceLock<&'static Gpu<R>>,
}

impl<R: GpuRuntime> std::fmt::Debug for Gpu<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpu({})", self.name)
    }
}

impl<R: GpuRuntime> Gpu<R> {
    /// Starts the runtime on `device`, which `info` describes, for as long as the program runs.
    pub(crate) fn start(info: &DeviceInfo, device: R::Device) -> Result<&'static Gpu<R>> {
        let (name, memory) = (info.name.as_str(), info.memory);
        let started = catch_unwind(AssertUnwindSafe(|| {
            let mut client = R::client(&device);
            // SAFETY: every client of a device of ours works on this one stream, so its commands run in the order they were
            // given, from whichever thread; handles never meet another stream.
            unsafe { client.set_stream(StreamId { value: 0 }) };
            let fault = client.create_from_slice(&[0u8; 4 * gradus_kernels::fault::WORDS]);
            (client, fault)
        }));
        let (client, fault) = started.map_err(|_| {
            Error::new(ErrorKind::Device, format!("{name}: the runtime could not be started on {device:?}"))
        })?;
        let properties = client.properties();
        let types = Types::of(properties, R::DOUBLES);
        let bindings = properties.hardware.max_bindings as usize;
        let largest = usize::try_from(properties.memory.max_page_size).unwrap_or(usize::MAX);
        // The runtime's pools round sizes up: a tenth is left to them.
        let ledger = Ledger::new(largest, memory - memory / 10);
        let gpu: &'static Gpu<R> = Box::leak(Box::new(Gpu {
            name: name.into(),
            client,
            device,
            types,
            ledger,
            fault,
            sites: Sites::default(),
            pace: Mutex::new(Pace::new()),
            strategies: strategies::enter(name, info.kind, bindings)?,
            pending: Mutex::new(None),
            table: KernelTable::new(),
            ones: Ones::default(),
            updates: Waiting::default(),
            itself: OnceLock::new(),
        }));
        gpu.itself.get_or_init(|| gpu);
        gpu.register_fused();
        Ok(gpu)
    }

    /// The device, which lives as long as the program.
    pub(crate) fn for_ever(&self) -> Result<&'static Gpu<R>> {
        let none = || Error::new(ErrorKind::Device, format!("{} has not been started", self.name));
        self.itself.get().copied().ok_or_else(none)
    }

    /// Host bytes as the device stores them, in whole words, as copies move those.
    pub(crate) fn words(&self, dtype: DType, bytes: &[u8]) -> Result<Vec<u8>> {
        let mut data = self.types.to_device(dtype, bytes)?;
        data.resize(data.len().next_multiple_of(4).max(4), 0);
        Ok(data)
    }

    /// The choices that are in force.
    pub(crate) fn strategies(&self) -> Strategies {
        *self.strategies.read().unwrap_or_else(|e| e.into_inner())
    }

    /// Keeps an error for whoever waits next.
    pub(crate) fn note(&self, error: Error) {
        let mut pending = self.pending.lock().unwrap_or_else(|e| e.into_inner());
        pending.get_or_insert(error);
    }

    fn noted(&self) -> Result<()> {
        match self.pending.lock().unwrap_or_else(|e| e.into_inner()).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Runs a call that waits for the runtime's thread; if that thread is gone, so is the device.
    fn waiting<T>(&self, call: impl FnOnce() -> std::result::Result<T, ServerError>) -> Result<T> {
        match catch_unwind(AssertUnwindSafe(call)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.failed(&error)),
            Err(_) => Err(Error::new(
                ErrorKind::Device,
                format!("{}: the runtime has stopped; start the program anew", self.name),
            )),
        }
    }

    /// The runtime's error without its backtraces.
    fn failed(&self, error: &ServerError) -> Error {
        let text = error.to_string();
        let lines: Vec<&str> =
            text.lines().map(str::trim).take_while(|l| !l.starts_with("Backtrace") && !l.starts_with("0:")).collect();
        Error::new(ErrorKind::Device, format!("{}: {}", self.name, lines.join(" ")))
    }

    /// Notes a launch, of an update or not; at the end of a step waits for the device, if it is too far behind.
    #[track_caller]
    pub(crate) fn paced(&self, is_update: bool) {
        if profile::is_taken() {
            let done = self.waiting(|| cubecl::future::block_on(self.client.sync()));
            profile::note(std::panic::Location::caller());
            if let Err(error) = done {
                self.note(error);
            }
            return;
        }
        let mut pace = self.pace.lock().unwrap_or_else(|e| e.into_inner());
        if !pace.step_ended(is_update) {
            return;
        }
        let fenced = self.waiting(|| Ok(R::armed(self.client.sync())));
        let done = fenced.map(|fence| pace.fenced(fence)).and_then(|oldest| match oldest {
            Some(fence) => self.waiting(|| cubecl::future::block_on(fence)),
            None => Ok(()),
        });
        if let Err(error) = done {
            self.note(error);
        }
    }

    /// Hands everything over, and surfaces what went wrong up to here. Fences are waited for: each may hold an error.
    fn settle(&self) -> Result<()> {
        self.let_updates_go();
        let fences = self.pace.lock().unwrap_or_else(|e| e.into_inner()).drain();
        let done = fences.into_iter().map(|fence| self.waiting(|| cubecl::future::block_on(fence)));
        let done = done.chain([self.waiting(|| self.client.flush())]).collect::<Result<()>>();
        self.noted()?;
        done
    }

    /// Waits, and reads the bytes of `memory`, and whether a kernel noted a fault.
    fn read(&self, memory: &GpuBuffer) -> Result<Vec<u8>> {
        self.settle()?;
        let handles = vec![memory.handle().clone(), self.fault.clone()];
        let parts = self.waiting(|| cubecl::future::block_on(self.client.read_async(handles)))?;
        self.checked(&parts[1])?;
        Ok(parts[0].to_vec())
    }

    /// The error of what kernels noted in `words`, told once.
    fn checked(&self, words: &[u8]) -> Result<()> {
        match self.sites.error(words, &self.name) {
            Some(error) => {
                self.reset_fault();
                Err(error)
            }
            None => Ok(()),
        }
    }

    /// The words for faults as a kernel's argument.
    pub(crate) fn fault(&self) -> ArrayArg<R> {
        self.raw(&self.fault, gradus_kernels::fault::WORDS)
    }

    /// The number under which a launch of `op` notes an index that names none of `len` places.
    pub(crate) fn site(&self, op: &'static str, len: usize, classes: bool) -> u32 {
        self.sites.number(Site { op, len, classes })
    }

    fn reset_fault(&self) {
        // SAFETY: the kernel writes the words that the handle has.
        unsafe {
            fill_kernel::launch_unchecked::<R>(
                self.client(),
                CubeCount::new_single(),
                CubeDim::new_1d(gradus_kernels::fault::WORDS as u32),
                cubecl::ir::AddressType::U32,
                self.fault(),
                InputScalar::new(0u32, U32),
                gradus_kernels::fault::WORDS,
                U32,
            );
        }
    }
}

impl<R: GpuRuntime> Backend for Gpu<R> {
    fn name(&self) -> &str {
        &self.name
    }
    fn supports(&self, dtype: DType) -> bool {
        self.types.has(dtype)
    }
    fn memory(&self) -> MemoryReport {
        let reserved = self.waiting(|| self.client.memory_usage()).map_or(0, |usage| usage.bytes_reserved as usize);
        self.ledger.report(reserved)
    }
    fn kernels(&self) -> &KernelTable {
        &self.table
    }
    fn ones(&self) -> &Ones {
        &self.ones
    }

    fn upload(&self, dtype: DType, bytes: &[u8]) -> Result<Buffer> {
        if !self.types.has(dtype) {
            return Err(self.lacks(dtype));
        }
        let (elements, words) = (bytes.len() / dtype.size(), self.words(dtype, bytes)?);
        if self.is_recording() {
            return self.recorded_upload(elements, words);
        }
        let held = self.ledger.hold(words.len(), &self.name)?;
        let memory = Memory::new(self.client.create_from_slice(&words), words.len(), held);
        self.done(GpuBuffer::new(memory, elements, &self.name))
    }
    fn download(&self, x: View<'_>, out: &mut [u8]) -> Result<()> {
        if x.elements() == 0 {
            return self.noted();
        }
        let dense = self.dense(x)?;
        let stored = self.read(self.memory_of(&dense)?)?;
        self.types.to_host(x.dtype, &stored, out);
        Ok(())
    }
    fn empty(&self, elements: usize, dtype: DType) -> Result<Buffer> {
        self.recorded(&[], move |gpu, _| gpu.done(gpu.reserve(elements, dtype)?))
    }
    fn fill(&self, elements: usize, dtype: DType, value: &Scalar) -> Result<Buffer> {
        let value = value.clone();
        self.recorded(&[], move |gpu, _| gpu.filled(elements, dtype, &value))
    }
    fn copy(&self, x: View<'_>) -> Result<Buffer> {
        self.recorded(&[x], |gpu, x| gpu.convert(x[0], x[0].dtype))
    }
    fn cast(&self, x: View<'_>, to: DType) -> Result<Buffer> {
        self.recorded(&[x], move |gpu, x| gpu.convert(x[0], to))
    }
    fn write(&self, dst: &mut Buffer, at: &Layout, src: View<'_>, mode: WriteMode) -> Result<()> {
        self.recorded_write(dst, at, src, mode)
    }
    fn random(&self, distribution: Distribution, key: &Key, elements: usize, dtype: DType) -> Result<Buffer> {
        let key = key.clone();
        self.recorded(&[], move |gpu, _| gpu.drawn(distribution, &key, elements, dtype))
    }

    fn unary(&self, op: UnaryOp, x: View<'_>) -> Result<Buffer> {
        self.recorded(&[x], move |gpu, x| gpu.map(op, x[0]))
    }
    fn binary(&self, op: BinaryOp, a: Operand<'_>, b: Operand<'_>) -> Result<Buffer> {
        self.recorded_pair(a, b, move |gpu, a, b| gpu.zip(op, a, b))
    }
    fn compare(&self, op: CompareOp, a: Operand<'_>, b: Operand<'_>) -> Result<Buffer> {
        self.recorded_pair(a, b, move |gpu, a, b| gpu.compared(op, a, b))
    }
    fn select(&self, condition: View<'_>, a: View<'_>, b: View<'_>) -> Result<Buffer> {
        self.recorded(&[condition, a, b], |gpu, x| gpu.chosen(x[0], x[1], x[2]))
    }

    fn reduce(&self, op: ReduceOp, x: View<'_>, dims: Dims) -> Result<Buffer> {
        self.recorded(&[x], move |gpu, x| gpu.reduced(op, x[0], dims))
    }
    fn arg_reduce(&self, op: ArgReduceOp, x: View<'_>, dim: usize) -> Result<Buffer> {
        self.recorded(&[x], move |gpu, x| gpu.arg_reduced(op, x[0], dim))
    }
    fn scan(&self, op: ScanOp, x: View<'_>, dim: usize) -> Result<Buffer> {
        self.recorded(&[x], move |gpu, x| gpu.scanned(op, x[0], dim))
    }
    fn argsort(&self, x: View<'_>, dim: usize, descending: bool) -> Result<Buffer> {
        self.recorded(&[x], move |gpu, x| gpu.sorted(x[0], dim, descending))
    }

    fn matmul(&self, a: View<'_>, b: View<'_>, spec: &MatmulSpec<'_>) -> Result<Buffer> {
        let activation = spec.activation;
        let product = move |gpu: &Gpu<R>, x: &[View<'_>]| {
            gpu.product(x[0], x[1], &MatmulSpec { bias: x.get(2).copied(), activation })
        };
        match spec.bias {
            Some(bias) => self.recorded(&[a, b, bias], product),
            None => self.recorded(&[a, b], product),
        }
    }
    fn gather(&self, x: View<'_>, index: View<'_>, how: Index) -> Result<Buffer> {
        self.recorded(&[x, index], move |gpu, x| gpu.picked(x[0], x[1], how))
    }
    fn scatter(&self, op: ScatterOp, base: View<'_>, index: View<'_>, src: View<'_>, how: Index) -> Result<Buffer> {
        self.recorded(&[base, index, src], move |gpu, x| gpu.scattered(op, x[0], x[1], x[2], how))
    }

    fn synchronize(&self) -> Result<()> {
        self.settle()?;
        self.waiting(|| cubecl::future::block_on(self.client.sync()))?;
        let words = self.waiting(|| cubecl::future::block_on(self.client.read_async(vec![self.fault.clone()])))?;
        self.checked(&words[0])
    }

    fn begin_capture(&self) -> Result<()> {
        self.begin()
    }
    fn capture_call(&self, passing: bool) -> usize {
        self.next_call(passing)
    }
    fn capture_bytes(&self) -> usize {
        self.recorded_bytes()
    }
    fn capture_alias(&self, buffer: &Buffer) -> Result<Option<Buffer>> {
        self.second_handle(buffer)
    }
    fn end_capture(&self) -> Result<Box<dyn Replay>> {
        self.end()
    }
}
