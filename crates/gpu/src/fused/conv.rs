//! Convolutions, straight from their windows. Tiles and chunks are chosen by shape alone.

use super::covered;
use super::window::windows;
use crate::Gpu;
use crate::memory::GpuBuffer;
use crate::runtime::GpuRuntime;
use cubecl::prelude::*;
use gradus_core::backend::Dims;
use gradus_core::composite::Fused;
use gradus_core::functional::conv::Conv;
use gradus_core::ops::ReduceOp;
use gradus_core::{Buffer, DType, Layout, Result, Shape, View};
use gradus_kernels::conv::{Part, SizesLaunch, conv_kernel};
use gradus_kernels::matmul::Tile;

/// The product that a part is, for each group.
struct Product {
    rows: usize,
    columns: usize,
    depth: usize,
    /// How many chunks the sum is cut in, for a weight's gradient, and how long each is.
    chunks: usize,
    chunk: usize,
    images: usize,
    inputs: usize,
    outputs: usize,
}

impl Product {
    fn of(part: Part, conv: &Conv, longest: usize, images: usize, inputs: usize, outputs: usize) -> Product {
        let w = &conv.window;
        let places: usize = w.input[..w.rank].iter().product();
        let (rows, columns, depth) = match part {
            Part::Output => (outputs, images * w.windows(), inputs * w.places()),
            Part::Input => (inputs, images * places, outputs * w.places()),
            Part::Weight => (outputs, inputs * w.places(), images * w.windows()),
        };
        let chunk = if part == Part::Weight { longest.max(1) } else { depth };
        Product { rows, columns, depth, chunks: depth.div_ceil(chunk), chunk, images, inputs, outputs }
    }

    /// The tile of a cube of `side × side` threads; its sides divide their number.
    fn tile(&self, side: usize) -> Tile {
        let side = side.max(8);
        let along = |n: usize| match n {
            0..=16 => 16,
            17..=32 => 32,
            _ => 64,
        };
        Tile { side, rows: along(self.rows) / side, columns: along(self.columns) / side }
    }
}

impl<R: GpuRuntime> Gpu<R> {
    pub(super) fn conv(&self, conv: &Conv, x: &[View<'_>]) -> Result<Option<Fused>> {
        if !covered(x[0].dtype) || x[..2].iter().any(|v| v.elements() == 0) {
            return Ok(None);
        }
        let (images, inputs) = (x[0].shape()[0], x[1].shape()[1]);
        let outputs = x[1].shape()[0] / conv.groups;
        let product = Product::of(Part::Output, conv, self.strategies().conv_chunk, images, inputs, outputs);
        let out = self.convolved(Part::Output, conv, &product, [x[1], x[0]], x.get(2).copied())?;
        Ok(Some(Fused::one(out)))
    }

    pub(super) fn conv_input_grad(&self, conv: &Conv, x: &[View<'_>]) -> Result<Option<Fused>> {
        if !covered(x[0].dtype) || x[..2].iter().any(|v| v.elements() == 0) {
            return Ok(None);
        }
        let (images, inputs) = (x[0].shape()[0], x[1].shape()[1]);
        let outputs = x[1].shape()[0] / conv.groups;
        let product = Product::of(Part::Input, conv, self.strategies().conv_chunk, images, inputs, outputs);
        let out = self.convolved(Part::Input, conv, &product, [x[1], x[0]], x.get(2).copied())?;
        Ok(Some(Fused::one(out)))
    }

    pub(super) fn conv_weight_grad(&self, conv: &Conv, bias: bool, x: &[View<'_>]) -> Result<Option<Fused>> {
        if !covered(x[0].dtype) || x.iter().any(|v| v.elements() == 0) {
            return Ok(None);
        }
        let (images, inputs) = (x[0].shape()[0], x[0].shape()[1] / conv.groups);
        let outputs = x[1].shape()[1] / conv.groups;
        let product = Product::of(Part::Weight, conv, self.strategies().conv_chunk, images, inputs, outputs);
        let mut fused = Fused::one(self.convolved(Part::Weight, conv, &product, [x[1], x[0]], None)?);
        if bias {
            let others = (0..x[1].shape().rank()).filter(|&d| d != 1).fold(Dims::default(), Dims::with);
            fused.outputs.push(self.reduced(ReduceOp::Sum, x[1], others)?);
        }
        Ok(Some(fused))
    }

    /// One part of a convolution of two factors, of which the first gives the rows.
    #[track_caller] // a profile tells the parts apart
    fn convolved(
        &self,
        part: Part,
        conv: &Conv,
        p: &Product,
        factors: [View<'_>; 2],
        bias: Option<View<'_>>,
    ) -> Result<Buffer> {
        let dtype = factors[0].dtype;
        let (first, second) = (self.dense(factors[0])?, self.dense(factors[1])?);
        let bias = bias.map(|b| self.dense(b)).transpose()?;
        let (first, second) = (self.memory_of(&first)?, self.memory_of(&second)?);
        let vector = bias.as_ref().map(|b| self.memory_of(b)).transpose()?;
        let results = conv.groups * p.rows * p.columns;
        // Partial sums are added up in f32, and rounded once.
        let sums = if p.chunks > 1 { DType::F32 } else { dtype };
        let out: GpuBuffer = self.reserve(p.chunks * results, sums)?;
        let cut = p.tile(self.strategies().cube_side);
        let layers = conv.groups * p.chunks;
        let tiles = p.rows.div_ceil(cut.side * cut.rows) * p.columns.div_ceil(cut.side * cut.columns) * layers;
        let address = self.address(&[first.elements, second.elements, out.elements, p.depth])?;
        let sizes = SizesLaunch::new(p.images, conv.groups, p.inputs, p.outputs, p.chunk, p.chunks);
        // SAFETY: dense factors of the composite's shapes (which its `infer` checked); the kernel stops at rows, columns and
        // depth, and reads no padding.
        unsafe {
            conv_kernel::launch_unchecked::<R>(
                self.client(),
                self.cubes(tiles),
                CubeDim::new_2d(cut.side as u32, cut.side as u32),
                address,
                self.array(first),
                self.array(second),
                self.array(vector.unwrap_or(first)),
                self.array(&out),
                windows(&conv.window),
                sizes,
                tiles,
                part,
                cut,
                vector.is_some(),
                conv.window.stride[..conv.window.rank].iter().all(|&n| n == 1),
                [self.types.stored(dtype), self.types.stored(sums)],
            );
        }
        self.launched();
        let out = self.done(out)?;
        if p.chunks == 1 {
            return Ok(out);
        }
        let parts = Layout::dense(Shape::try_new(&[p.chunks, results])?);
        let view = View { buffer: &out, layout: &parts, dtype: sums };
        let total = self.reduced(ReduceOp::Sum, view, Dims::default().with(0))?;
        let row = Layout::dense(Shape::try_new(&[results])?);
        match dtype {
            DType::F32 => Ok(total),
            _ => self.convert(View { buffer: &total, layout: &row, dtype: sums }, dtype),
        }
    }
}
