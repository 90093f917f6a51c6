//! One sequence's step of an LSTM or a GRU once its gates are summed, and the gradients. Long loops are cut where one would need
//! more registers than there are. Every slice is cut to n numbers where the compiler sees it: else it leaves the last lanes of each
//! loop to scalars, to find out whether they are there.

use crate::math::Float;
use crate::simd::vectorized;

vectorized! {
    /// Of the gates, and c: the activations of i, f, g and o, the next c, and h.
    pub(super) fn lstm_forward(x: [&[f32]; 2], kept: [&mut [f32]; 2], h: &mut [f32]) {
        let n = h.len();
        let ([gates, c], [activations, next]) = (x, kept);
        let (gates, c, next) = (&gates[..4 * n], &c[..n], &mut next[..n]);
        let (i_f, g_o) = activations[..4 * n].split_at_mut(2 * n);
        for (a, &x) in i_f.iter_mut().zip(&gates[..2 * n]) {
            *a = Float::sigmoid::<FMA>(x);
        }
        let (g, o) = g_o.split_at_mut(n);
        for (g, &x) in g.iter_mut().zip(&gates[2 * n..3 * n]) {
            *g = Float::tanh::<FMA>(x);
        }
        for (o, &x) in o.iter_mut().zip(&gates[3 * n..]) {
            *o = Float::sigmoid::<FMA>(x);
        }
        let (i, f) = (&i_f[..n], &i_f[n..2 * n]);
        let (g, o) = (&g[..n], &o[..n]);
        for j in 0..n {
            next[j] = f[j] * c[j] + i[j] * g[j];
            h[j] = o[j] * Float::tanh::<FMA>(next[j]);
        }
    }
    /// Of the activations, c before and after, and two gradients of h that add up: the gradients of the gates, and of c, which stands
    /// in place of that of the next c.
    pub(super) fn lstm_backward(x: [&[f32]; 5], dc: &mut [f32], gates: &mut [f32]) {
        let n = dc.len();
        let [activations, before, after, gy, dh] = x;
        let (i, f) = (&activations[..n], &activations[n..2 * n]);
        let (g, o) = (&activations[2 * n..3 * n], &activations[3 * n..4 * n]);
        let (before, after, gy, dh) = (&before[..n], &after[..n], &gy[..n], &dh[..n]);
        let (di, rest) = gates[..4 * n].split_at_mut(n);
        let (df, rest) = rest.split_at_mut(n);
        let (dg, d_o) = rest.split_at_mut(n);
        let d_o = &mut d_o[..n];
        for j in 0..n {
            let (gh, t) = (gy[j] + dh[j], Float::tanh::<FMA>(after[j]));
            d_o[j] = gh * t * (o[j] - o[j] * o[j]);
            dc[j] += gh * o[j] * (1.0 - t * t);
        }
        for j in 0..n {
            let d = dc[j];
            di[j] = d * g[j] * (i[j] - i[j] * i[j]);
            df[j] = d * before[j] * (f[j] - f[j] * f[j]);
            dg[j] = d * i[j] * (1.0 - g[j] * g[j]);
            dc[j] = d * f[j];
        }
    }
    /// Of the gates of input and h, the bias of the latter, and h: r, z, n and the part of n that r stands before, and the next h.
    pub(super) fn gru_forward(x: [&[f32]; 4], kept: &mut [f32], next: &mut [f32]) {
        let n = next.len();
        let [gx, gh, bias, h] = x;
        let (gx, gh, bias, h) = (&gx[..3 * n], &gh[..3 * n], &bias[..3 * n], &h[..n]);
        let (r_z, rest) = kept[..4 * n].split_at_mut(2 * n);
        for (((a, &x), &s), &b) in r_z.iter_mut().zip(&gx[..2 * n]).zip(&gh[..2 * n]).zip(&bias[..2 * n]) {
            *a = Float::sigmoid::<FMA>(x + (s + b));
        }
        let (new, part) = rest.split_at_mut(n);
        let (r, z, part) = (&r_z[..n], &r_z[n..2 * n], &mut part[..n]);
        let (gx, gh, bias) = (&gx[2 * n..3 * n], &gh[2 * n..3 * n], &bias[2 * n..3 * n]);
        for j in 0..n {
            part[j] = gh[j] + bias[j];
            new[j] = Float::tanh::<FMA>(gx[j] + r[j] * part[j]);
            next[j] = new[j] + z[j] * (h[j] - new[j]);
        }
    }
    /// Of what forward kept, h before, and the gradient of h after, to which `dh` adds: the gradients of the gates of input and h, and
    /// in `dh` what goes past the gates.
    pub(super) fn gru_backward(x: [&[f32]; 3], dh: &mut [f32], grads: [&mut [f32]; 2]) {
        let ([kept, before, gy], [dx, ds]) = (x, grads);
        let n = before.len();
        let (r, z) = (&kept[..n], &kept[n..2 * n]);
        let (new, part) = (&kept[2 * n..3 * n], &kept[3 * n..4 * n]);
        let (before, gy, dh) = (&before[..n], &gy[..n], &mut dh[..n]);
        let (dr, rest) = dx[..3 * n].split_at_mut(n);
        let (dz, dn) = rest.split_at_mut(n);
        let dn = &mut dn[..n];
        for j in 0..n {
            let g = gy[j] + dh[j];
            dn[j] = g * (1.0 - z[j]) * (1.0 - new[j] * new[j]);
            dz[j] = g * (before[j] - new[j]) * (z[j] - z[j] * z[j]);
            dr[j] = dn[j] * part[j] * (r[j] - r[j] * r[j]);
            dh[j] = g * z[j];
        }
        ds[..n].copy_from_slice(dr);
        ds[n..2 * n].copy_from_slice(dz);
        for ((d, &dn), &r) in ds[2 * n..3 * n].iter_mut().zip(&*dn).zip(r) {
            *d = dn * r;
        }
    }
}
