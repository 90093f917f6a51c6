//! Matrix products: our own kernel, or Burn's for large ones.
//!
//! Burn's tiled kernels are several times faster on large products, but each class of shapes takes seconds to compile; ours
//! compiles once, reads any strides, and never rounds `f32` to TF32. The choice is made by [`choice`] from the shapes, the
//! dtype and a committed table alone ([`crate::strategies`]), so a run's bits do not depend on timing.

use crate::Gpu;
use crate::launch::{Steps, folded, lengths};
use crate::runtime::GpuRuntime;
use crate::strategies::Strategies;
use crate::types::F32;
use cubecl::prelude::*;
use gradus_core::backend::{MatmulSpec, Operand};
use gradus_core::ops::BinaryOp;
use gradus_core::{Buffer, DType, Error, ErrorKind, Layout, Result, Shape, View, allows_tf32};
use gradus_kernels::matmul::{MatrixLaunch, Tile, matmul_kernel};
use gradus_kernels::strided::PlaceLaunch;
use gradus_products::{Float, Matrices};

/// Which kernel computes a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Ours, with tiles of so many rows and columns.
    Own(usize, usize),
    /// Burn's.
    Burn,
}

/// The choice of the table for products `[m, k] × [k, n]`; `exact` if those of `f32` must not be rounded to TF32.
pub(crate) fn choice(table: &Strategies, dtype: DType, m: usize, n: usize, k: usize, exact: bool) -> Choice {
    let large = |power: usize| {
        let multiplications = m.saturating_mul(n).saturating_mul(k);
        m.min(n).min(k) >= 128 && multiplications.checked_shr(power as u32).is_some_and(|n| n > 0)
    };
    match dtype {
        // On tensor cores, Burn may round f32 to TF32: ours keeps every bit.
        DType::F32 if large(table.burn_f32) && !exact => Choice::Burn,
        DType::F16 | DType::Bf16 if large(table.burn_half) => Choice::Burn,
        _ => {
            let (high, wide) = (tile(table, m), tile(table, n));
            // One long side: what both would hold takes a software driver ten seconds to compile.
            let long =
                |length: usize| table.cube_side >= 8 && high == 64 && wide == 64 && length > table.product_tile_64;
            match (long(m), long(n)) {
                (true, _) => Choice::Own(128, 64),
                (false, true) => Choice::Own(64, 128),
                (false, false) => Choice::Own(high, wide),
            }
        }
    }
}

/// How long a tile is along a side of `length` rows or columns.
fn tile(table: &Strategies, length: usize) -> usize {
    match length {
        n if n <= table.product_tile_16 => 16,
        n if n <= table.product_tile_32 => 32,
        _ => 64,
    }
}

/// The geometry of a product.
struct Product {
    lead: Shape,
    m: usize,
    n: usize,
    k: usize,
}

impl<R: GpuRuntime> Gpu<R> {
    pub(crate) fn product(&self, a: View<'_>, b: View<'_>, spec: &MatmulSpec<'_>) -> Result<Buffer> {
        let (sa, sb) = (a.shape(), b.shape());
        let rank = sa.rank();
        let p = Product { lead: Shape::try_new(&sa[..rank - 2])?, m: sa[rank - 2], k: sa[rank - 1], n: sb[rank - 1] };
        let len = p.lead.elements() * p.m * p.n;
        if len == 0 {
            return self.done(self.reserve(0, a.dtype)?);
        }
        let tensor_cores = !self.client.properties().features.matmul.cmma.is_empty();
        match choice(&self.strategies(), a.dtype, p.m, p.n, p.k, tensor_cores && !allows_tf32()) {
            Choice::Own(high, wide) => self.own_product(a, b, spec, &p, [high, wide]),
            Choice::Burn => self.burn_product(a, b, spec, &p),
        }
    }

    fn own_product(
        &self,
        a: View<'_>,
        b: View<'_>,
        spec: &MatmulSpec<'_>,
        p: &Product,
        [high, wide]: [usize; 2],
    ) -> Result<Buffer> {
        let (left, right) = (self.memory_of(a.buffer)?, self.memory_of(b.buffer)?);
        let bias = spec.bias.map(|v| self.memory_of(v.buffer)).transpose()?;
        let batches = p.lead.elements();
        let out = self.reserve(batches * p.m * p.n, a.dtype)?;
        let lead = p.lead.rank();
        let leading =
            |v: View<'_>| Steps { strides: v.layout.strides()[..lead].to_vec(), offset: v.layout.offset() as isize };
        let (shape, [at_a, at_b]) = folded(&p.lead, [&leading(a), &leading(b)]);
        let matrix = |s: &Steps, v: View<'_>| {
            let place: PlaceLaunch<R> = s.place();
            MatrixLaunch::new(place, v.layout.strides()[lead], v.layout.strides()[lead + 1])
        };
        let activation = match spec.activation {
            Some(op) => Some(
                crate::kernel_of::float_unary(op)
                    .ok_or_else(|| Error::unsupported(format!("no product ends in {}", op.name())))?,
            ),
            None => None,
        };
        let (bias_offset, bias_step) =
            spec.bias.map_or((0, 0), |v| (v.layout.offset() as isize, v.layout.strides()[0]));
        let address = self.address(&[left.elements, right.elements, out.elements])?;
        let stored = self.types.stored(a.dtype);
        let computed = self.types.computed(a.dtype);
        let float = if a.dtype.is_float() { computed } else { F32 };
        let side = self.strategies().cube_side;
        let cut = Tile { side, rows: high / side, columns: wide / side };
        let (rows, columns) = (p.m.div_ceil(high), p.n.div_ceil(wide));
        if rows > 65_535 || columns > 65_535 {
            return Err(Error::unsupported(format!(
                "{} multiplies at most {} rows or columns",
                self.name,
                65_535 * 16
            )));
        }
        for first in (0..batches).step_by(65_535) {
            let depth = (batches - first).min(65_535);
            let count = CubeCount::Static(columns as u32, rows as u32, depth as u32);
            // SAFETY: the views lie inside their buffers (the caller's contract), and the kernel checks every row, column
            // and step in k against m, n and k.
            unsafe {
                matmul_kernel::launch_unchecked::<R>(
                    self.client(),
                    count,
                    CubeDim::new_2d(side as u32, side as u32),
                    address,
                    self.array(left),
                    self.array(right),
                    self.array(bias.unwrap_or(left)),
                    self.array(&out),
                    lengths(&shape),
                    matrix(&at_a, a),
                    matrix(&at_b, b),
                    bias_offset,
                    bias_step,
                    p.m,
                    p.n,
                    p.k,
                    first,
                    cut,
                    bias.is_some(),
                    activation,
                    [stored, computed, float, stored],
                );
            }
            self.launched();
        }
        self.done(out)
    }

    fn burn_product(&self, a: View<'_>, b: View<'_>, spec: &MatmulSpec<'_>, p: &Product) -> Result<Buffer> {
        let (left, right) = (self.matrices(a)?, self.matrices(b)?);
        let memory = self.reserve(p.lead.elements() * p.m * p.n, a.dtype)?;
        let shape = [&p.lead[..], &[p.m, p.n]].concat();
        let out = Matrices { handle: memory.handle().clone(), shape, transposed: false };
        let float = match a.dtype {
            DType::F16 => Float::F16,
            DType::Bf16 => Float::Bf16,
            _ => Float::F32,
        };
        R::product(self.client(), &self.device, left, right, out, float).map_err(|why| {
            let what = format!("{} could not set up a product of {} and {}: {why}", self.name, a.shape(), b.shape());
            Error::new(ErrorKind::Device, what)
        })?;
        self.launched();
        let out = self.done(memory)?;
        self.finished(out, a.dtype, p, spec)
    }

    /// The bias and the activation of a product, where its kernel has none.
    fn finished(&self, out: Buffer, dtype: DType, p: &Product, spec: &MatmulSpec<'_>) -> Result<Buffer> {
        let shape = p.lead.try_insert(p.lead.rank(), p.m)?.try_insert(p.lead.rank() + 1, p.n)?;
        let layout = Layout::dense(shape);
        let with_bias = match spec.bias {
            None => out,
            Some(bias) => {
                let stretched = bias.layout.expand(&shape);
                let (y, c) = (View { buffer: &out, layout: &layout, dtype }, View { layout: &stretched, ..bias });
                self.zip(BinaryOp::Add, Operand::View(y), Operand::View(c))?
            }
        };
        match spec.activation {
            None => Ok(with_bias),
            Some(op) => self.map(op, View { buffer: &with_bias, layout: &layout, dtype }),
        }
    }

    /// The view's matrices where Burn can read them: whole, dense, or dense and transposed; else a dense copy.
    fn matrices(&self, x: View<'_>) -> Result<Matrices> {
        let rank = x.shape().rank();
        let mut order: Vec<usize> = (0..rank).collect();
        order.swap(rank - 2, rank - 1);
        let turned = x.layout.permute(&order);
        let memory = self.memory_of(x.buffer)?;
        let whole = x.layout.offset() == 0 && x.elements() == memory.elements;
        if whole && !x.layout.is_dense() && turned.is_dense() {
            let shape = turned.shape().to_vec();
            return Ok(Matrices { handle: memory.handle().clone(), shape, transposed: true });
        }
        let dense = self.dense(x)?;
        let handle = self.memory_of(&dense)?.handle().clone();
        Ok(Matrices { handle, shape: x.shape().to_vec(), transposed: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_depends_on_shape_and_dtype_alone() {
        let table = Strategies::column(crate::strategies::TABLE, "gpu").expect("the committed table is whole");
        let table = Strategies { product_tile_16: 16, product_tile_32: 64, burn_f32: 27, burn_half: 27, ..table };
        let table = Strategies { cube_side: 8, product_tile_64: 600, ..table };
        assert_eq!(choice(&table, DType::F32, 32, 10, 64, false), Choice::Own(32, 16));
        assert_eq!(choice(&table, DType::F32, 64, 64, 64, false), Choice::Own(32, 32));
        assert_eq!(choice(&table, DType::F32, 512, 512, 512, false), Choice::Burn);
        assert_eq!(choice(&table, DType::F32, 512, 512, 512, true), Choice::Own(64, 64));
        assert_eq!(choice(&table, DType::F16, 512, 512, 512, true), Choice::Burn);
        assert_eq!(choice(&table, DType::I64, 512, 512, 512, false), Choice::Own(64, 64));
        let never = Strategies { burn_f32: 64, ..table };
        assert_eq!(choice(&never, DType::F32, 512, 512, 512, false), Choice::Own(64, 64));
        let long = Strategies { product_tile_64: 127, ..table };
        assert_eq!(choice(&long, DType::I64, 128, 512, 512, false), Choice::Own(128, 64));
        assert_eq!(choice(&long, DType::I64, 127, 128, 512, false), Choice::Own(64, 128));
        assert_eq!(choice(&long, DType::I64, 64, 128, 512, false), Choice::Own(32, 64));
        let small = Strategies { cube_side: 4, ..long };
        assert_eq!(choice(&small, DType::I64, 512, 512, 512, false), Choice::Own(64, 64));
    }
}
