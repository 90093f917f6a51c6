//! Activation checkpointing: a block keeps its inputs alone, and is run again when its gradient is wanted.
//!
//! What flows into a block is more than its arguments: it also closes over parameters. So the block is recorded once, the
//! nodes that its graph hangs on are noted, and the graph is dropped; these nodes become the inputs of one node for the
//! whole block. That is why gradients of every order reach parameters as well as arguments.
//! (Chen et al., "Training deep nets with sublinear memory cost", 2016.)

use super::engine::{Backward, gradients_at, inputs_of};
use super::node::{Aux, Grads, Node};
use super::rule::{CallRule, Rule};
use super::vjp::Vjp;
use super::{enable_grad, is_grad_enabled};
use crate::error::{Error, Result, or_raise};
use crate::op::{Meta, Saves};
use crate::precision::{Precision, precision, with_precision};
use crate::tensor::Tensor;
use std::cell::Cell;
use std::collections::HashSet;
use std::fmt::{self, Debug};
use std::sync::Arc;

thread_local! {
    static RECOMPUTING: Cell<bool> = const { Cell::new(false) };
}

struct Restore(bool);
impl Drop for Restore {
    fn drop(&mut self) {
        RECOMPUTING.set(self.0);
    }
}

/// Whether a checkpointed block is being run again, for its gradient: what it did to the outside world (running statistics)
/// was done by its first run already.
pub fn is_recomputing() -> bool {
    RECOMPUTING.get()
}

/// Runs `block`, keeping only what flows into it; backward runs it again. Panics at the caller's line on misuse.
///
/// The block must be a pure function: randomness comes from keys, which draw the same numbers again.
#[track_caller]
pub fn checkpoint(block: impl Fn(&[Tensor]) -> Result<Tensor> + Send + Sync + 'static, x: &[&Tensor]) -> Tensor {
    or_raise(try_checkpoint(block, x))
}

/// As [`checkpoint`], with misuse returned as an error.
#[track_caller]
pub fn try_checkpoint(
    block: impl Fn(&[Tensor]) -> Result<Tensor> + Send + Sync + 'static,
    x: &[&Tensor],
) -> Result<Tensor> {
    let args: Vec<Tensor> = x.iter().map(|&t| t.clone()).collect();
    if !is_grad_enabled() {
        return block(&args);
    }
    crate::capture::leave("a checkpointed block, whose second run cannot be compared,");
    let before = Node::newest();
    let y = block(&args)?;
    let Some(node) = y.node.clone().filter(|n| n.id > before) else {
        return Ok(y); // nothing was recorded in the block
    };
    let outside = hangs_on(&node, before);
    drop(node);
    let value = y.value.clone();
    drop(y); // and with it the block's graph
    let carriers: Vec<Tensor> = outside.iter().map(|n| carrier(n, &value)).collect();
    let refs: Vec<&Tensor> = carriers.iter().collect();
    let metas = outside.iter().map(|n| n.meta).collect();
    let rule = Block { block: Box::new(block), args, outside, metas, precision: precision() };
    let mut out = Node::call(CallRule::of(rule), &refs, Saves::NOTHING, Aux::new(), smallvec::smallvec![value]);
    out.pop().ok_or_else(|| Error::misuse("a checkpointed block gave no output"))
}

/// A tensor that stands for a node where a call's inputs are listed. Its value is never read.
fn carrier(node: &Arc<Node>, value: &Arc<crate::tensor::Value>) -> Tensor {
    Tensor { value: value.clone(), node: Some(node.clone()) }
}

/// The nodes no newer than `before` that the graph of `root` hangs on, oldest first.
pub(crate) fn hangs_on(root: &Arc<Node>, before: u64) -> Vec<Arc<Node>> {
    let (mut seen, mut stack, mut found) = (HashSet::new(), vec![root.clone()], Vec::new());
    while let Some(node) = stack.pop() {
        for input in inputs_of(&node) {
            if seen.insert(input.id) {
                if input.id <= before { found.push(input.clone()) } else { stack.push(input.clone()) }
            }
        }
    }
    found.sort_by_key(|n| n.id);
    found
}

type BlockFn = Box<dyn Fn(&[Tensor]) -> Result<Tensor> + Send + Sync>;

struct Block {
    block: BlockFn,
    args: Vec<Tensor>,
    outside: Vec<Arc<Node>>,
    metas: Vec<Meta>,
    precision: Precision,
}

impl Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoint({:?})", self.metas)
    }
}

impl Rule for Block {
    fn name(&self) -> &'static str {
        "checkpoint"
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Grads {
        let again = Restore(RECOMPUTING.replace(true));
        let y = or_raise(with_precision(self.precision, || enable_grad(|| (self.block)(&self.args))));
        drop(again);
        let how = if cx.graph() { Backward::graph() } else { Backward::default() };
        let wanted: Vec<_> = self.outside.iter().map(|n| Some(n.clone())).collect();
        // What flows in may hang together outside: a block that sees both a weight and what was made with it.
        or_raise(gradients_at(&[(y, cx.grad())], &wanted, how, true)).into_iter().collect()
    }
}
