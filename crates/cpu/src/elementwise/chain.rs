//! Chains of elementwise functions: block by block through all links, so that what lies between stays in the L1 cache.
//!
//! The loops are those of the single ops, so a chain has the bits of its definition. What a link gives goes to a slot, which is used
//! again when its last reader is done; an output's goes where it belongs.

use super::loops::{Fn1, Fn2, binary_f32, binary_f64, unary_f32, unary_f64};
use super::{CHUNK, finish, source};
use crate::launch::{Out, launch, storage};
use crate::memory::CpuStorage;
use crate::strided::{BLOCK, Scratch, Source};
use crate::threads::for_ranges;
use crate::unary_grad;
use gradus_core::backend::View;
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::chain::{Chain, Link, Term};
use gradus_core::ops::{BinaryOp, UnaryOp};
use gradus_core::{DType, Element, Layout, Result};
use smallvec::SmallVec;

pub(crate) fn register(table: &KernelTable) {
    table.register(|c: FusedCall<'_, Chain>| match c.x[0].dtype {
        DType::F32 => fused(c, Loops { unary: unary_f32, grad: unary_grad::table, binary: binary_f32 }),
        DType::F64 => fused(c, Loops { unary: unary_f64, grad: |_| None, binary: binary_f64 }),
        _ => Ok(None), // between halves each link rounds
    });
}

/// The loops of a type.
struct Loops<T> {
    unary: fn(UnaryOp) -> Option<Fn1<T>>,
    grad: fn(UnaryOp) -> Option<Fn2<T>>,
    binary: fn(BinaryOp) -> Option<Fn2<T>>,
}

/// Where elements of a block are.
#[derive(Clone, Copy, Debug)]
enum At {
    Input(usize),
    Slot(usize),
    Output(usize),
    Number(usize),
}

#[derive(Clone, Copy)]
enum Step<T> {
    One(Fn1<T>, At),
    Two(Fn2<T>, At, At),
}

/// The links as loops over blocks, each with where its result goes.
struct Plan<T> {
    steps: Vec<(Step<T>, At)>,
    slots: usize,
    numbers: Vec<T>,
}

impl<T: Element> Plan<T> {
    /// `None` if a link has no loop here.
    fn of(chain: &Chain, loops: &Loops<T>) -> Option<Plan<T>> {
        let mut plan = Plan { steps: Vec::with_capacity(chain.links.len()), slots: 0, numbers: Vec::new() };
        let (mut places, mut free): (Vec<At>, Vec<usize>) = (Vec::with_capacity(chain.links.len()), Vec::new());
        let mut last = chain.last_readers();
        for (i, link) in chain.links.iter().enumerate() {
            let mut at = |t: Term| match t {
                Term::Input(n) => At::Input(n),
                Term::Link(n) => places[n],
                Term::Number(n) => {
                    plan.numbers.push(T::from_f64(n));
                    At::Number(plan.numbers.len() - 1)
                }
            };
            let step = match *link {
                Link::Unary(op, a) => Step::One((loops.unary)(op)?, at(a)),
                Link::UnaryGrad(op, g, a) => Step::Two((loops.grad)(op)?, at(g), at(a)),
                Link::Binary(op, a, b) => Step::Two((loops.binary)(op)?, at(a), at(b)),
            };
            let to = match chain.outputs.iter().position(|&o| o == i) {
                Some(o) => At::Output(o),
                None => At::Slot(free.pop().unwrap_or_else(|| {
                    plan.slots += 1;
                    plan.slots - 1
                })),
            };
            plan.steps.push((step, to));
            places.push(to);
            // Not before: a link must not write where it reads.
            for term in link.terms() {
                // Taken, for a link may read another twice.
                if let Term::Link(n) = term
                    && last[n].take_if(|reader| *reader == i).is_some()
                    && let At::Slot(s) = places[n]
                {
                    free.push(s);
                }
            }
        }
        Some(plan)
    }
}

/// What a thread works in.
struct Blocks<T> {
    slots: Vec<Vec<T>>,
    numbers: Vec<Vec<T>>,
}

impl<T: Element> Plan<T> {
    /// For blocks of at most `k` elements.
    fn blocks(&self, k: usize) -> Blocks<T> {
        let numbers = self.numbers.iter().map(|&n| vec![n; k]).collect();
        Blocks { slots: (0..self.slots).map(|_| vec![T::from_f64(0.0); k]).collect(), numbers }
    }

    /// Runs all links over `k` elements from `at` on.
    fn run(&self, b: &mut Blocks<T>, x: &[&[T]], outs: &[Out<T>], at: usize, k: usize) {
        for &(step, to) in &self.steps {
            // A slot that is written is read by no one meanwhile.
            let mut own = if let At::Slot(s) = to { std::mem::take(&mut b.slots[s]) } else { Vec::new() };
            let result = if let At::Output(o) = to { outs[o].part(at, k) } else { &mut own[..k] };
            let read = |from: At| -> &[T] {
                match from {
                    At::Input(i) => x[i],
                    At::Slot(s) => &b.slots[s][..k],
                    At::Output(o) => outs[o].part(at, k),
                    At::Number(n) => &b.numbers[n][..k],
                }
            };
            match step {
                Step::One(f, a) => f(read(a), result),
                Step::Two(f, a, c) => f(read(a), read(c), result),
            }
            if let At::Slot(s) = to {
                b.slots[s] = own;
            }
        }
    }
}

fn fused<T: Element + Default>(c: FusedCall<'_, Chain>, loops: Loops<T>) -> Result<Option<Fused>> {
    let Some(plan) = Plan::of(c.op, &loops) else { return Ok(None) };
    let shape = c.outputs[0].shape;
    let n = shape.elements();
    let to = c.outputs.iter().map(|_| CpuStorage::new(n * size_of::<T>())).collect::<Result<Vec<_>>>()?;
    let outs: Vec<Out<T>> = to.iter().map(|s| Out::of(s)).collect();
    let reads = c.x.iter().map(|v| storage(v.buffer)).collect::<Result<SmallVec<[&CpuStorage; 4]>>>()?;
    let layouts: SmallVec<[Layout; 4]> = c.x.iter().map(|v| v.layout.expand(&shape)).collect();
    let views = c.x.iter().zip(&layouts).map(|(v, layout)| View { layout, ..*v });
    let sources: Vec<Source<T>> = views.map(source::<T>).collect::<Result<_>>()?;
    let cost = 600 * plan.steps.len();
    launch(&reads, &to.iter().map(|s| &**s).collect::<SmallVec<[&CpuStorage; 4]>>(), move || {
        for_ranges(n, CHUNK, cost, |start, len| {
            let mut scratches: Vec<Scratch<T>> = sources.iter().map(|_| Scratch::new()).collect();
            let mut blocks = plan.blocks(BLOCK.min(len));
            for at in (start..start + len).step_by(BLOCK) {
                let k = BLOCK.min(start + len - at);
                let x: SmallVec<[&[T]; 4]> =
                    sources.iter().zip(&mut scratches).map(|(x, scratch)| x.block(at, k, scratch)).collect();
                plan.run(&mut blocks, &x, &outs, at, k);
            }
        });
    });
    let outputs = to.into_iter().map(finish).collect::<Result<_>>()?;
    Ok(Some(Fused { outputs, ..Fused::default() }))
}
