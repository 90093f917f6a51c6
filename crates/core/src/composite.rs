//! Composites: functions defined by other ops, which a backend may run as one fused kernel.
//!
//! The definition is the mathematics: the oracle of the tests, the fallback, and the gradient of any order. A fused kernel
//! may keep statistics (`rstd`, `logsumexp`) for its backward; they are never visible as outputs.

use crate::autodiff::{self, Aux, CallRule, Grads, Node, Rule, Vjp};
use crate::backend::{Backend, Buffer, View};
use crate::capture::{self, Ask, Effect, Note};
use crate::device::Device;
use crate::error::{Result, or_raise};
use crate::layout::Layout;
use crate::op::{Meta, Metas, Saves, Tensors, checked, device_of, no_output, sized, with_inputs};
use crate::precision::{Autocast, recast};
use crate::tensor::{Tensor, Update, UpdateCall, Value};
use smallvec::SmallVec;
use std::any::{Any, TypeId};
use std::cell::Cell;
use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// A function defined by other ops. See the [module](self).
///
/// Its `Debug` text shows all of its attributes (a derived one does): a recorded step ([`crate::capture`]) tells calls apart by it.
pub trait Composite: Debug + Send + Sync + 'static {
    /// Its name, as in the catalog.
    fn name(&self) -> &'static str;
    /// Every check of the inputs, once; gives the outputs' dtypes and shapes.
    fn infer(&self, x: &[Meta]) -> Result<Metas>;
    /// The mathematics, in tensors.
    fn define(&self, x: &[&Tensor]) -> Result<Tensors>;
    /// What backward keeps alive. One without a [`vjp`](Composite::vjp) of its own needs its inputs, for the definition.
    fn saves(&self) -> Saves {
        Saves::INPUTS
    }
    /// What it computes in under a half precision.
    fn autocast(&self) -> Autocast {
        Autocast::Widest
    }
    /// A backward of its own, usually a composite itself; `None` differentiates the definition.
    fn vjp(&self, _cx: &Vjp<'_>) -> Option<Grads> {
        None
    }
}

/// What a fused kernel gives.
#[derive(Debug, Default)]
pub struct Fused {
    /// The outputs, in the composite's order, whole and without gaps.
    pub outputs: SmallVec<[Buffer; 3]>,
    /// Their dimensions as they lie in memory, from the outermost to the one whose places are side by side; `None`: as they are
    /// named. A kernel whose outputs will be read in another order than they are named in writes them so.
    pub order: Option<&'static [usize]>,
    /// What its backward wants to keep, with their metas: reached as [`Vjp::aux`].
    pub aux: SmallVec<[(Meta, Buffer); 1]>,
}

impl Fused {
    /// A single output, and nothing kept.
    pub fn one(buffer: Buffer) -> Fused {
        Fused { outputs: smallvec::smallvec![buffer], ..Fused::default() }
    }
    /// With outputs that lie in this order of their dimensions.
    pub fn in_order(mut self, order: &'static [usize]) -> Fused {
        self.order = Some(order);
        self
    }
    /// The same, with something kept for backward.
    pub fn keep(mut self, meta: Meta, buffer: Buffer) -> Fused {
        self.aux.push((meta, buffer));
        self
    }
}

/// What a fused kernel is called with.
pub struct FusedCall<'a, C> {
    /// The composite, with its attributes.
    pub op: &'a C,
    /// The device.
    pub on: &'a dyn Backend,
    /// The inputs.
    pub x: &'a [View<'a>],
    /// What the composite inferred for its outputs.
    pub outputs: &'a [Meta],
    /// Whether a backward may follow, so that statistics are worth keeping.
    pub records: bool,
}

/// A kernel lives as long as the program, as devices do; so does one that another has replaced.
type AnyKernel =
    &'static (dyn Fn(&dyn Any, &dyn Backend, &[View<'_>], &[Meta], bool) -> Result<Option<Fused>> + Send + Sync);

type AnyUpdate =
    &'static (dyn Fn(&dyn Any, &dyn Backend, &mut [&mut Buffer], Meta, &[View<'_>]) -> Result<bool> + Send + Sync);

/// A backend's fused kernels, by the type of the composite or update.
#[derive(Default)]
pub struct KernelTable {
    composites: ByType<AnyKernel>,
    updates: ByType<AnyUpdate>,
}

/// Kernels of one kind. Those that are there when the first is asked for are read without a lock from then on, as a lock costs
/// more than the rest of a lookup; what is registered later lies apart.
struct ByType<K> {
    early: OnceLock<HashMap<TypeId, K, OfType>>,
    /// Not in `early`, and newer.
    rest: RwLock<Rest<K>>,
    has_rest: AtomicBool,
}

struct Rest<K> {
    kernels: HashMap<TypeId, K, OfType>,
    /// Whether `early` was made from what was here.
    is_late: bool,
}

impl<K> Default for ByType<K> {
    fn default() -> ByType<K> {
        let rest = RwLock::new(Rest { kernels: HashMap::default(), is_late: false });
        ByType { early: OnceLock::new(), rest, has_rest: AtomicBool::new(false) }
    }
}

impl<K: Copy> ByType<K> {
    fn insert(&self, id: TypeId, kernel: K) {
        let mut rest = self.rest.write().unwrap_or_else(PoisonError::into_inner);
        rest.kernels.insert(id, kernel);
        self.has_rest.store(rest.is_late, Ordering::Release);
    }

    #[inline]
    fn get(&self, id: TypeId) -> Option<K> {
        if self.has_rest.load(Ordering::Acquire)
            && let Some(&kernel) = self.rest.read().unwrap_or_else(PoisonError::into_inner).kernels.get(&id)
        {
            return Some(kernel);
        }
        let settle = || {
            let mut rest = self.rest.write().unwrap_or_else(PoisonError::into_inner);
            rest.is_late = true;
            std::mem::take(&mut rest.kernels)
        };
        self.early.get_or_init(settle).get(&id).copied()
    }
}

type OfType = BuildHasherDefault<TypeHasher>;

/// A type's id is a hash already.
#[derive(Default)]
struct TypeHasher(u64);

impl Hasher for TypeHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&b| self.0 = self.0.rotate_left(8) ^ u64::from(b));
    }
    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

impl Debug for KernelTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KernelTable")
    }
}

impl KernelTable {
    /// An empty table.
    pub fn new() -> KernelTable {
        KernelTable::default()
    }

    /// Registers the fused kernel of composite `C`, in place of any earlier one. It gives `None` for a case that it does
    /// not cover, which then runs by definition.
    pub fn register<C: Composite>(
        &self,
        kernel: impl Fn(FusedCall<'_, C>) -> Result<Option<Fused>> + Send + Sync + 'static,
    ) {
        let erased: AnyKernel = Box::leak(Box::new(
            move |op: &dyn Any, on: &dyn Backend, x: &[View<'_>], outputs: &[Meta], records: bool| match op
                .downcast_ref::<C>()
            {
                Some(op) => kernel(FusedCall { op, on, x, outputs, records }),
                None => Ok(None),
            },
        ));
        self.composites.insert(TypeId::of::<C>(), erased);
    }

    /// Registers the fused kernel of update `U`. It gives `false`, having written nothing, for a case that it does not
    /// cover, which then runs by definition.
    pub fn register_update<U: Update>(
        &self,
        kernel: impl Fn(UpdateCall<'_, '_, U>) -> Result<bool> + Send + Sync + 'static,
    ) {
        let erased: AnyUpdate = Box::leak(Box::new(
            move |op: &dyn Any, on: &dyn Backend, targets: &mut [&mut Buffer], meta: Meta, x: &[View<'_>]| match op
                .downcast_ref::<U>()
            {
                Some(op) => kernel(UpdateCall { op, on, targets, meta, x }),
                None => Ok(false),
            },
        ));
        self.updates.insert(TypeId::of::<U>(), erased);
    }

    pub(crate) fn get_update<U: Update>(&self) -> Option<AnyUpdate> {
        if DEFINED_ONLY.get() {
            return None;
        }
        self.updates.get(TypeId::of::<U>())
    }

    /// Whether composite `C` has a fused kernel here.
    pub fn has<C: Composite>(&self) -> bool {
        self.composites.get(TypeId::of::<C>()).is_some()
    }

    /// Whether update `U` has a fused kernel here.
    pub fn has_update<U: Update>(&self) -> bool {
        self.updates.get(TypeId::of::<U>()).is_some()
    }
}

thread_local! {
    static DEFINED_ONLY: Cell<bool> = const { Cell::new(false) };
}

/// Whether composites run by definition on this thread.
pub(crate) fn is_defined_only() -> bool {
    DEFINED_ONLY.get()
}

/// Runs `f` with every composite by its definition, on this thread: the oracle that fused kernels are tested against.
pub fn by_definition<T>(f: impl FnOnce() -> T) -> T {
    let before = DEFINED_ONLY.replace(true);
    let restore = Restore(before);
    let out = f();
    drop(restore);
    out
}

struct Restore(bool);
impl Drop for Restore {
    fn drop(&mut self) {
        DEFINED_ONLY.set(self.0);
    }
}

impl Tensor {
    /// Runs a composite: its fused kernel where the device has one, else its definition. Panics at the caller's line on
    /// misuse.
    #[inline]
    #[track_caller]
    pub fn compose(op: impl Composite, x: &[&Tensor]) -> Tensors {
        or_raise(Tensor::try_compose(op, x))
    }

    /// Runs a composite with one output: as [`try_compose`](Self::try_compose), with all that is known of the call on the stack.
    #[inline]
    #[track_caller]
    pub fn try_compose1<C: Composite, const N: usize>(op: C, x: &[&Tensor; N]) -> Result<Tensor> {
        if let Some(cast) = recast(op.autocast(), x) {
            let cast = cast.map_err(|e| with_inputs(e, op.name(), x))?;
            return Tensor::try_compose1(op, &std::array::from_fn::<&Tensor, N, _>(|i| &cast[i]));
        }
        if !capture::is_active() {
            return compose1(op, x);
        }
        let name = op.name();
        first(name, Tensor::try_compose(op, x))
    }

    /// Runs a composite: its fused kernel where the device has one, else its definition.
    #[track_caller]
    pub fn try_compose<C: Composite>(op: C, x: &[&Tensor]) -> Result<Tensors> {
        if let Some(cast) = recast(op.autocast(), x) {
            let cast = cast.map_err(|e| with_inputs(e, op.name(), x))?;
            return Tensor::try_compose(op, &cast.iter().collect::<SmallVec<[&Tensor; 4]>>());
        }
        let note = match capture::ask(&op, x) {
            Ask::Eager => return compose(op, x, None),
            Ask::Done(outputs) => return outputs.map_err(|e| with_inputs(e, op.name(), x)),
            Ask::Define => return op.define(x).map_err(|e| with_inputs(e, op.name(), x)),
            Ask::Note(note) => note,
        };
        compose(op, x, Some(note))
    }
}

/// Calls `f` with the inputs' metas: of a few inputs without a list that could grow.
fn with_metas<R>(x: &[&Tensor], f: &dyn Fn(&[Meta]) -> R) -> R {
    match *x {
        [a] => f(&[a.meta()]),
        [a, b] => f(&[a.meta(), b.meta()]),
        [a, b, c] => f(&[a.meta(), b.meta(), c.meta()]),
        [a, b, c, d] => f(&[a.meta(), b.meta(), c.meta(), d.meta()]),
        [a, b, c, d, e] => f(&[a.meta(), b.meta(), c.meta(), d.meta(), e.meta()]),
        _ => f(&x.iter().map(|t| t.meta()).collect::<Vec<_>>()),
    }
}

/// The kernel of composite `C`, unless composites are to run by definition.
#[inline]
fn kernel_of<C: Composite>(backend: &dyn Backend) -> Option<AnyKernel> {
    if DEFINED_ONLY.get() { None } else { backend.kernels().composites.get(TypeId::of::<C>()) }
}

/// The only output of a call.
pub(crate) fn first(name: &'static str, outputs: Result<Tensors>) -> Result<Tensor> {
    outputs?.pop().ok_or_else(|| no_output(name))
}

/// Runs a composite with one output.
#[track_caller]
#[inline]
fn compose1<C: Composite, const N: usize>(op: C, x: &[&Tensor; N]) -> Result<Tensor> {
    let define = || first(op.name(), op.define(x).map_err(|e| with_inputs(e, op.name(), x)));
    let device = device_of(op.name(), x)?;
    let inferred = op.infer(&x.map(|t| t.meta()));
    let metas = match &inferred {
        Ok(metas) if metas.len() == 1 => metas,
        _ => return Err(inferred.map_or_else(|e| with_inputs(e, op.name(), x), |_| no_output(op.name()))),
    };
    sized(op.name(), x, &metas[0])?;
    let Some(kernel) = kernel_of::<C>(device.backend()) else { return define() };
    let records = autodiff::records(x);
    let mut fused = match kernel(&op, device.backend(), &x.map(|t| t.view()), metas, records) {
        Ok(Some(fused)) => fused,
        Ok(None) => return define(),
        Err(e) => return Err(with_inputs(e, op.name(), x)),
    };
    let Some(buffer) = fused.outputs.pop() else { return Err(no_output(op.name())) };
    let value = made(buffer, fused.order, &metas[0], device);
    if !records {
        return Ok(Tensor::from_value(value));
    }
    let (saves, aux) = (op.saves(), kept(fused.aux, device));
    Ok(Node::call1(CallRule::of(CompositeRule(op)), x, saves, aux, value))
}

/// An output of a kernel.
#[inline]
fn made(buffer: Buffer, order: Option<&[usize]>, meta: &Meta, device: Device) -> Arc<Value> {
    match order {
        None => Value::dense(buffer, meta, device),
        Some(order) => Arc::new(Value::new(buffer, Layout::in_order(&meta.shape, order), meta.dtype, device)),
    }
}

/// What a kernel keeps for backward, as tensors.
fn kept(mut aux: SmallVec<[(Meta, Buffer); 1]>, device: Device) -> Aux {
    let mut kept = Aux::new(); // pushed one by one: collecting none takes some hundred instructions
    for (meta, buffer) in aux.drain(..) {
        kept.push(Tensor::from_value(Value::dense(buffer, &meta, device)));
    }
    kept
}

/// Runs a composite; if the call is being recorded, tells its note how it went.
#[track_caller]
#[inline(always)]
fn compose<C: Composite>(op: C, x: &[&Tensor], note: Option<Note>) -> Result<Tensors> {
    let define = |note: Option<Note>| {
        if let Some(note) = note {
            note.gave(&[], Effect::Define);
        }
        op.define(x).map_err(|e| with_inputs(e, op.name(), x))
    };
    let (device, metas) = with_metas(x, &|inputs| checked(op.name(), x, inputs, |m| op.infer(m)))?;
    let backend = device.backend();
    let Some(kernel) = kernel_of::<C>(backend) else {
        return define(note);
    };
    let records = autodiff::records(x);
    let mut views: SmallVec<[View<'_>; 4]> = SmallVec::new();
    x.iter().for_each(|t| views.push(t.view()));
    let fused = kernel(&op, backend, &views, &metas, records).map_err(|e| with_inputs(e, op.name(), x))?;
    let Some(fused) = fused else {
        return define(note);
    };
    let order = fused.order;
    let values = metas.iter().zip(fused.outputs).map(|(meta, buffer)| made(buffer, order, meta, device));
    let outputs = if records {
        let mut outputs = SmallVec::new();
        values.for_each(|value| outputs.push(value));
        let (saves, aux) = (op.saves(), kept(fused.aux, device));
        Node::call(CallRule::of(CompositeRule(op)), x, saves, aux, outputs)
    } else {
        let mut outputs = Tensors::new();
        values.for_each(|value| outputs.push(Tensor::from_value(value)));
        outputs
    };
    if let Some(note) = note {
        note.gave(&outputs, Effect::None);
    }
    Ok(outputs)
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct CompositeRule<C>(C);

impl<C: Composite> Rule for CompositeRule<C> {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Grads {
        match self.0.vjp(cx) {
            Some(grads) => grads,
            None => or_raise(by_differentiating(cx, |x| self.0.define(x))),
        }
    }
}

/// The gradients of a function by running it again under a graph of its own. Each input position gets a node of its own,
/// so that a tensor used twice is counted once for each.
pub(crate) fn by_differentiating(cx: &Vjp<'_>, define: impl FnOnce(&[&Tensor]) -> Result<Tensors>) -> Result<Grads> {
    let inputs: Vec<Tensor> = (0..cx.inputs())
        .map(|i| {
            let x = cx.x(i);
            match (cx.needs(i), cx.graph()) {
                (false, _) => x.detach(),
                (true, false) => x.requires_grad(),
                (true, true) => Node::alias(&x),
            }
        })
        .collect();
    let refs: Vec<&Tensor> = inputs.iter().collect();
    let outputs = autodiff::enable_grad(|| define(&refs))?;
    let roots: Vec<(Tensor, Tensor)> =
        outputs.iter().enumerate().filter_map(|(i, y)| Some((y.clone(), cx.grad_of(i)?))).collect();
    let wanted: Vec<Tensor> = (0..cx.inputs()).filter(|&i| cx.needs(i)).map(|i| inputs[i].clone()).collect();
    let mut grads = autodiff::gradients_of(&roots, &wanted, cx.graph())?.into_iter();
    Ok((0..cx.inputs()).map(|i| if cx.needs(i) { grads.next().flatten() } else { None }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_registered_late_replaces_an_early_one() {
        let (table, id) = (ByType::default(), TypeId::of::<u8>());
        table.insert(id, 1);
        assert_eq!((table.get(id), table.get(TypeId::of::<u16>())), (Some(1), None));
        table.insert(id, 2);
        table.insert(TypeId::of::<u16>(), 3);
        assert_eq!((table.get(id), table.get(TypeId::of::<u16>())), (Some(2), Some(3)));
    }
}
