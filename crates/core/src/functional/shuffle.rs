//! Channels dealt out to places and groups, and back: all of them a reshape, a permutation and a reshape.

use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// `[.., c, h, w]` as its leading dimensions, how many maps they hold, and c, h, w.
fn image<'a>(x: &'a Tensor, op: &'static str) -> Result<(&'a [usize], usize, [usize; 3])> {
    let Some(lead) = x.rank().checked_sub(3) else {
        return Err(Error::misuse("needs [.., channels, height, width]").in_op(op, [(x.dtype(), *x.shape())]));
    };
    let (lead, rest) = x.dims().split_at(lead);
    Ok((lead, lead.iter().product(), [rest[0], rest[1], rest[2]]))
}

fn misfit(x: &Tensor, op: &'static str, message: String) -> Error {
    Error::misuse(message).in_op(op, [(x.dtype(), *x.shape())])
}

impl Tensor {
    crate::fallible! {
        /// Channels become places: `[.., c·r², h, w] → [.., c, h·r, w·r]` (Shi et al., 2016). In PyTorch:
        /// `torch.nn.functional.pixel_shuffle`.
        pub fn pixel_shuffle | try_pixel_shuffle(&self, factor: usize) -> Tensor {
            let (lead, n, [c, h, w]) = image(self, "pixel_shuffle")?;
            let r = factor;
            let area = r.checked_mul(r).filter(|&a| a > 0 && c.is_multiple_of(a));
            let area = area.ok_or_else(|| misfit(self, "pixel_shuffle", format!("{c} channels are no multiple of {r}²")))?;
            let (tall, wide) = match (h.checked_mul(r), w.checked_mul(r)) {
                (Some(tall), Some(wide)) => (tall, wide),
                _ => return Err(misfit(self, "pixel_shuffle", format!("an image {r} times as large is too large"))),
            };
            // [n, c, r, r, h, w] → [n, c, h, r, w, r]
            let split = self.try_reshape([n, c / area, r, r, h, w])?.try_permute(&[0, 1, 4, 2, 5, 3])?;
            split.try_reshape([lead, &[c / area, tall, wide]].concat())
        }
        /// Places become channels: `[.., c, h·r, w·r] → [.., c·r², h, w]`, the inverse of
        /// [`pixel_shuffle`](Self::pixel_shuffle). In PyTorch: `torch.nn.functional.pixel_unshuffle`.
        pub fn pixel_unshuffle | try_pixel_unshuffle(&self, factor: usize) -> Tensor {
            let (lead, n, [c, h, w]) = image(self, "pixel_unshuffle")?;
            let r = factor;
            if r == 0 || !h.is_multiple_of(r) || !w.is_multiple_of(r) {
                return Err(misfit(self, "pixel_unshuffle", format!("{h} × {w} places do not come in squares of {r}")));
            }
            let channels = r.checked_mul(r).and_then(|a| a.checked_mul(c));
            let channels = channels.ok_or_else(|| misfit(self, "pixel_unshuffle", format!("{c}·{r}² channels are too many")))?;
            // [n, c, h, r, w, r] → [n, c, r, r, h, w]
            let split = self.try_reshape([n, c, h / r, r, w / r, r])?.try_permute(&[0, 1, 3, 5, 2, 4])?;
            split.try_reshape([lead, &[channels, h / r, w / r]].concat())
        }
        /// The channels (dimension 1) dealt out to `groups` in turn (Zhang et al., 2018). In PyTorch:
        /// `torch.nn.functional.channel_shuffle`.
        pub fn channel_shuffle | try_channel_shuffle(&self, groups: usize) -> Tensor {
            if self.rank() < 3 || groups == 0 || !self.dims()[1].is_multiple_of(groups) {
                return Err(misfit(self, "channel_shuffle", format!("needs [batch, channels, ..] with channels in {groups} groups")));
            }
            let (n, c) = (self.dims()[0], self.dims()[1]);
            let places = self.dims()[2..].iter().product();
            self.try_reshape([n, groups, c / groups, places])?.try_transpose(1, 2)?.try_reshape(*self.shape())
        }
    }
}
