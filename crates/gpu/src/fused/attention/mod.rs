//! Attention by tiles, which keeps ln Σ e^score of each query, and its gradients: by tensor cores where
//! [`tensor_cores`] says so, else in [`plain`] `f32`. Heads wider than [`WIDEST`] run by definition.

mod plain;
mod tensor_cores;

use super::covered;
use crate::Gpu;
use crate::launch::Steps;
use crate::memory::GpuBuffer;
use crate::runtime::GpuRuntime;
use cubecl::ir::StorageType;
use gradus_core::composite::Fused;
use gradus_core::functional::attention::Attention;
use gradus_core::{DType, Meta, Result, Shape, View};
use gradus_kernels::attention::{Form, Mask, ProblemLaunch};
use smallvec::smallvec;
use tensor_cores::Kernel;

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
        let steps = [q, k, v].map(|v| Steps::of(v.layout));
        let places = [&steps[0], &steps[1], &steps[2], &at_mask];
        let memory = [mq, mk, mv, mm];
        match self.cores(&c, Kernel::Forward, q.dtype, &[q, k, v]) {
            Some(form) => self.attention_cores(&c, form, memory, [&out, &lse], places, address),
            None => self.attention_plain(&c, memory, [&out, &lse], places, address),
        }
        Ok(Some(Fused::one(self.done(out)?).keep(c.statistic()?, self.done(lse)?)))
    }

    pub(super) fn attention_grad(&self, op: &Attention, x: &[View<'_>]) -> Result<Option<Fused>> {
        let [g, q, k, v, y, lse, mask @ ..] = x else { return Ok(None) };
        let kept = lse.dtype == DType::F32 && lse.layout.is_dense() && lse.layout.offset() == 0;
        let Some(c) = self.attention_call(op, [q, k, v], mask.first().copied())?.filter(|_| kept) else {
            return Ok(None);
        };
        let memory = x.iter().map(|v| self.memory_of(v.buffer)).collect::<Result<Vec<_>>>()?;
        let (mm, at_mask) = self.mask_of(&c, memory[1])?;
        let (queries, keys) = (c.batches * c.heads * c.queries, c.batches * c.shared * c.keys);
        let dq = self.reserve(queries * c.width, q.dtype)?;
        let (dk, dv) = (self.reserve(keys * c.width, q.dtype)?, self.reserve(keys * c.values, q.dtype)?);
        let delta = self.reserve(queries, DType::F32)?;
        let longest = memory.iter().map(|m| m.elements).max().unwrap_or(0);
        let address = self.address(&[longest, dq.elements, dk.elements, dv.elements])?;
        let steps = [g, q, k, v, y].map(|v| Steps::of(v.layout));
        let [at_g, at_q, at_k, at_v, at_y] = steps.each_ref();
        let [mg, mq, mk, mv, my, ml] = [0, 1, 2, 3, 4, 5].map(|i| memory[i]);
        let (of_dq, at_dq) = ([mg, mq, mk, mv, my, ml, mm], [at_g, at_q, at_k, at_v, at_y, &at_mask]);
        match self.cores(&c, Kernel::Queries, q.dtype, &[g, q, k, v]) {
            Some(form) => self.attention_cores_dq(&c, form, of_dq, [&dq, &delta], at_dq, address),
            None => self.attention_plain_dq(&c, of_dq, [&dq, &delta], at_dq, address),
        }
        let (of_dkv, at_dkv) = ([mg, mq, mk, mv, ml, &delta, mm], [at_g, at_q, at_k, at_v, &at_mask]);
        match self.cores(&c, Kernel::Keys, q.dtype, &[g, q, k, v]) {
            Some(form) => self.attention_cores_dkv(&c, form, of_dkv, [&dk, &dv], at_dkv, address),
            None => self.attention_plain_dkv(&c, of_dkv, [&dk, &dv], at_dkv, address),
        }
        Ok(Some(Fused { outputs: smallvec![self.done(dq)?, self.done(dk)?, self.done(dv)?], ..Fused::default() }))
    }
}
