//! Chains of elementwise functions, each a kernel of its own; and what is one of three links.

use super::activation::gradient;
use super::covered;
use crate::Gpu;
use crate::kernel_of::{float_binary, float_unary};
use crate::launch::{Steps, folded_all, lengths};
use crate::runtime::GpuRuntime;
use gradus_core::composite::{Fused, FusedCall};
use gradus_core::functional::chain::{self, Chain};
use gradus_core::functional::lerp::Lerp;
use gradus_core::{Layout, Meta, Result, View};
use gradus_kernels::binary::FloatBinary;
use gradus_kernels::chain::{Link, Program, Term, chain_kernel};

/// The most links of a kernel: what lies between them must find room in registers, and the kernel must be compiled.
const MOST: usize = 256;

impl<R: GpuRuntime> Gpu<R> {
    pub(super) fn chain(&self, c: FusedCall<'_, Chain>) -> Result<Option<Fused>> {
        if c.op.links.len() > MOST {
            return Ok(None);
        }
        let Some((program, numbers)) = program(c.op) else { return Ok(None) };
        self.run(program, numbers, c.x, c.outputs)
    }

    /// x + (end − x)·part, of which the part is an argument of the kernel.
    pub(super) fn lerp(&self, c: FusedCall<'_, Lerp>) -> Result<Option<Fused>> {
        let (x, end) = (Term::Input(0), Term::Input(1));
        let links = vec![
            Link::Binary(FloatBinary::Sub, end, x),
            Link::Binary(FloatBinary::Mul, Term::Link(0), Term::Number(0)),
            Link::Binary(FloatBinary::Add, x, Term::Link(1)),
        ];
        self.run(Program { links, outputs: vec![2] }, vec![c.op.part.to_f64() as f32], c.x, c.outputs)
    }

    fn run(&self, program: Program, numbers: Vec<f32>, x: &[View<'_>], to: &[Meta]) -> Result<Option<Fused>> {
        let (shape, dtype) = (to[0].shape, x[0].dtype);
        let (len, bindings) = (shape.elements(), x.len() + to.len());
        if !covered(dtype) || len == 0 || bindings > self.most_bindings() {
            return Ok(None);
        }
        let memory = x.iter().map(|v| self.memory_of(v.buffer)).collect::<Result<Vec<_>>>()?;
        let layouts: Vec<Layout> = x.iter().map(|v| v.layout.expand(&shape)).collect();
        let steps: Vec<Steps> = layouts.iter().map(Steps::of).collect();
        let (folded, steps) = folded_all(&shape, &steps);
        let outputs = to.iter().map(|_| self.reserve(len, dtype)).collect::<Result<Vec<_>>>()?;
        let longest = memory.iter().map(|m| m.elements).fold(len, usize::max);
        let (cubes, threads) = self.grid(len);
        // SAFETY: the views lie inside their buffers (the caller's contract), and the kernel stops at `len`.
        unsafe {
            chain_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                self.address(&[longest])?,
                memory.iter().map(|m| self.array(m)).collect(),
                outputs.iter().map(|m| self.array(m)).collect(),
                lengths(&folded),
                steps.iter().map(|s| s.place()).collect(),
                numbers.into_iter().collect(),
                len,
                program,
                self.types.stored(dtype),
            );
        }
        self.launched();
        let outputs = outputs.into_iter().map(|m| self.done(m)).collect::<Result<_>>()?;
        Ok(Some(Fused { outputs, ..Fused::default() }))
    }
}

/// A chain as a kernel's program, and its numbers; `None` if a link has no kernel.
fn program(chain: &Chain) -> Option<(Program, Vec<f32>)> {
    let (mut links, mut numbers) = (Vec::with_capacity(chain.links.len()), Vec::new());
    for link in &chain.links {
        let mut term = |t: chain::Term| match t {
            chain::Term::Input(i) => Term::Input(i),
            chain::Term::Link(i) => Term::Link(i),
            chain::Term::Number(n) => {
                numbers.push(n as f32);
                Term::Number(numbers.len() - 1)
            }
        };
        links.push(match *link {
            chain::Link::Unary(op, a) => Link::Unary(float_unary(op)?, term(a)),
            chain::Link::UnaryGrad(op, g, a) => Link::Grad(gradient(op)?, term(g), term(a)),
            chain::Link::Binary(op, a, b) => Link::Binary(float_binary(op)?, term(a), term(b)),
        });
    }
    Some((Program { links, outputs: chain.outputs.clone() }, numbers))
}
