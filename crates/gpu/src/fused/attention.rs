//! Attention by tiles, which keeps ln Σ e^score of each query, and its gradients. Heads wider than [`WIDEST`] run by definition.

use super::covered;
use crate::Gpu;
use crate::launch::Steps;
use crate::memory::GpuBuffer;
use crate::runtime::GpuRuntime;
use cubecl::ir::StorageType;
use cubecl::prelude::{CubeCount, CubeDim};
use gradus_core::composite::Fused;
use gradus_core::functional::attention::Attention;
use gradus_core::{DType, Meta, Result, Shape, View};
use gradus_kernels::attention::{
    Form, Mask, ProblemLaunch, attention_dkv_kernel, attention_dq_kernel, attention_kernel,
};
use smallvec::smallvec;

/// The most columns of a head that the kernels hold in registers.
const WIDEST: usize = 256;

/// The most numbers of a result that a thread holds, if a smaller tile helps.
const HELD: usize = 64;

/// The most cubes of one dimension of a launch.
const CUBES: usize = 65_535;

/// What the three kernels share: the lengths, and what they are compiled for.
struct Call<'a> {
    op: &'a Attention,
    batches: usize,
    heads: usize,
    /// Heads of keys and values.
    shared: usize,
    queries: usize,
    keys: usize,
    width: usize,
    values: usize,
    form: Form,
    mask: Option<View<'a>>,
    types: [StorageType; 2],
}

impl Call<'_> {
    fn problem<R: GpuRuntime>(&self) -> ProblemLaunch<R> {
        let (p, seed, stream, step) = match &self.op.dropout {
            Some((p, key)) => (*p, key.seed, key.stream, key.step.get()),
            None => (0.0, 0, 0, 0),
        };
        let keep = 1.0 - p;
        ProblemLaunch::new(
            self.heads,
            self.heads / self.shared,
            self.queries,
            self.keys,
            self.width,
            self.values,
            self.op.scale as f32,
            seed as u32,
            (seed >> 32) as u32,
            step,
            stream as u32,
            (stream >> 32) as u32,
            (keep * 16_777_216.0).ceil().clamp(0.0, 16_777_216.0) as u32,
            if keep > 0.0 { (1.0 / keep) as f32 } else { 0.0 },
        )
    }
    /// A cube for each tile of `rows` of each of `heads` heads.
    fn cubes(&self, rows: usize, heads: usize) -> (CubeCount, CubeDim) {
        let (tiles, side) = (rows.div_ceil(self.form.tile()), self.form.side as u32);
        (CubeCount::Static(tiles as u32, heads as u32, self.batches as u32), CubeDim::new_2d(side, side))
    }
    fn statistic(&self) -> Result<Meta> {
        Ok(Meta::new(DType::F32, Shape::try_new(&[self.batches, self.heads, self.queries])?))
    }
}

impl<R: GpuRuntime> Gpu<R> {
    /// The call of these queries, keys, values and mask, where the kernels cover it.
    fn attention_call<'a>(
        &self,
        op: &'a Attention,
        [q, k, v]: [&View<'a>; 3],
        mask: Option<View<'a>>,
    ) -> Result<Option<Call<'a>>> {
        let (sq, sv) = (q.shape(), v.shape());
        let (batches, heads, shared, queries, keys) = (sq[0], sq[1], sv[1], sq[2], sv[2]);
        let (width, values) = (sq[3], sv[3]);
        let empty = [q, k, v].iter().any(|x| x.elements() == 0);
        let large = width.max(values) > WIDEST || batches.max(heads).max(queries.max(keys).div_ceil(4)) > CUBES;
        // The dropout's words are counted in 32 bits.
        let many = op.dropout.is_some() && batches * heads * queries * keys > 1 << 32;
        if !covered(q.dtype) || empty || large || many {
            return Ok(None);
        }
        let of_mask = match &mask {
            None => Mask::None,
            Some(m) if m.dtype == DType::Bool => Mask::Seen,
            Some(_) => Mask::Added,
        };
        let side = self.strategies().cube_side;
        let mut form = Form {
            side,
            t: match queries.max(keys) {
                0..=16 => 16,
                17..=32 => 32,
                _ => 64,
            } / side,
            width: width.div_ceil(side),
            values: values.div_ceil(side),
            causal: op.causal,
            mask: of_mask,
            dropout: op.dropout.is_some(),
        };
        // A thread holds t · columns numbers of each result.
        while form.t * form.width.max(form.values) > HELD && form.t > 1 {
            form.t /= 2;
        }
        let room = self.client.properties().hardware.max_shared_memory_size;
        while form.shared() > room && form.t > 1 {
            form.t /= 2;
        }
        if form.shared() > room {
            return Ok(None);
        }
        let stored = self.types.stored(q.dtype);
        let types = [stored, mask.as_ref().map_or(stored, |m| self.types.stored(m.dtype))];
        Ok(Some(Call { op, batches, heads, shared, queries, keys, width, values, form, mask, types }))
    }

    /// The mask's memory and steps, or those of a stand-in that is not read.
    fn mask_of<'a>(&self, c: &Call<'a>, instead: &'a GpuBuffer) -> Result<(&'a GpuBuffer, Steps)> {
        Ok(match c.mask {
            Some(m) => (self.memory_of(m.buffer)?, Steps::of(m.layout)),
            None => (instead, Steps { strides: vec![0; 4], offset: 0 }),
        })
    }

    pub(super) fn attention(&self, op: &Attention, x: &[View<'_>]) -> Result<Option<Fused>> {
        let [q, k, v, mask @ ..] = x else { return Ok(None) };
        let Some(c) = self.attention_call(op, [q, k, v], mask.first().copied())? else { return Ok(None) };
        let [mq, mk, mv] = [self.memory_of(q.buffer)?, self.memory_of(k.buffer)?, self.memory_of(v.buffer)?];
        let (mm, at_mask) = self.mask_of(&c, mq)?;
        let rows = c.batches * c.heads * c.queries;
        let (out, lse) = (self.reserve(rows * c.values, q.dtype)?, self.reserve(rows, DType::F32)?);
        let address = self.address(&[mq.elements, mk.elements, mv.elements, mm.elements, out.elements])?;
        let (cubes, threads) = c.cubes(c.queries, c.heads);
        let place = |v: &View<'_>| Steps::of(v.layout).place();
        // SAFETY: the views lie inside their buffers (the caller's contract), and the kernel checks each query, key and column
        // against its length; a mask is read only if there is one.
        unsafe {
            attention_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                self.array(mq),
                self.array(mk),
                self.array(mv),
                self.array(mm),
                self.array(&out),
                self.array(&lse),
                place(q),
                place(k),
                place(v),
                at_mask.place(),
                c.problem(),
                c.form,
                c.types,
            );
        }
        self.launched();
        Ok(Some(Fused::one(self.done(out)?).keep(c.statistic()?, self.done(lse)?)))
    }

    pub(super) fn attention_grad(&self, op: &Attention, x: &[View<'_>]) -> Result<Option<Fused>> {
        let [g, q, k, v, y, lse, mask @ ..] = x else { return Ok(None) };
        let kept = lse.dtype == DType::F32 && lse.layout.is_dense() && lse.layout.offset() == 0;
        let Some(c) = self.attention_call(op, [q, k, v], mask.first().copied())?.filter(|_| kept) else {
            return Ok(None);
        };
        let memory = x.iter().map(|v| self.memory_of(v.buffer)).collect::<Result<Vec<_>>>()?;
        let array = |i: usize| self.array(memory[i]);
        let place = |v: &View<'_>| Steps::of(v.layout).place();
        let (mm, at_mask) = self.mask_of(&c, memory[1])?;
        let (queries, keys) = (c.batches * c.heads * c.queries, c.batches * c.shared * c.keys);
        let dq = self.reserve(queries * c.width, q.dtype)?;
        let (dk, dv) = (self.reserve(keys * c.width, q.dtype)?, self.reserve(keys * c.values, q.dtype)?);
        let delta = self.reserve(queries, DType::F32)?;
        let longest = memory.iter().map(|m| m.elements).max().unwrap_or(0);
        let address = self.address(&[longest, dq.elements, dk.elements, dv.elements])?;
        let ((rows, threads), (columns, _)) = (c.cubes(c.queries, c.heads), c.cubes(c.keys, c.shared));
        // SAFETY: as in `attention`; the statistics have a number for each query.
        unsafe {
            attention_dq_kernel::launch_unchecked::<R>(
                self.client(),
                rows,
                threads,
                address,
                array(0),
                array(1),
                array(2),
                array(3),
                array(4),
                array(5),
                self.array(mm),
                self.array(&dq),
                self.array(&delta),
                place(g),
                place(q),
                place(k),
                place(v),
                place(y),
                at_mask.place(),
                c.problem(),
                c.form,
                c.types,
            );
        }
        self.launched();
        // SAFETY: as above; δ was written for each query.
        unsafe {
            attention_dkv_kernel::launch_unchecked::<R>(
                self.client(),
                columns,
                threads,
                address,
                array(0),
                array(1),
                array(2),
                array(3),
                array(5),
                self.array(&delta),
                self.array(mm),
                self.array(&dk),
                self.array(&dv),
                place(g),
                place(q),
                place(k),
                place(v),
                at_mask.place(),
                c.problem(),
                c.form,
                c.types,
            );
        }
        self.launched();
        Ok(Some(Fused { outputs: smallvec![self.done(dq)?, self.done(dk)?, self.done(dv)?], ..Fused::default() }))
    }
}
