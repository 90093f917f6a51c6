//! Einstein's summation: products of tensors whose dimensions are named by letters, summed over those that the result lacks.
//!
//! Operands meet two at a time, left to right, as one batched matrix product (or an elementwise one, where nothing is summed).

use crate::error::{Error, Result, or_raise};
use crate::tensor::Tensor;
use std::collections::BTreeMap;

/// Dimensions that `...` stands for get names of their own, counted from the last one: private-use characters.
const ELLIPSIS: u32 = 0xE000;

/// A tensor and the name of each of its dimensions.
#[derive(Clone)]
struct Named {
    tensor: Tensor,
    names: Vec<char>,
}

/// The names of one operand's (or the result's) dimensions; `hidden` is how many `...` stands for.
fn names_of(part: &str, hidden: usize) -> Result<Vec<char>> {
    let ellipsis = (0..hidden).rev().filter_map(|i| char::from_u32(ELLIPSIS + i as u32));
    let mut names = Vec::new();
    let mut rest = part;
    let mut seen = false;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("...") {
            if std::mem::replace(&mut seen, true) {
                return Err(Error::misuse(format!("`{part}` has more than one `...`")));
            }
            names.extend(ellipsis.clone());
            rest = after;
        } else if c.is_ascii_alphabetic() {
            names.push(c);
            rest = &rest[1..];
        } else {
            return Err(Error::misuse(format!(
                "`{c}` in `{part}` is no letter; dimensions are named a to z and A to Z"
            )));
        }
    }
    Ok(names)
}

/// One operand, its names checked against its shape, and repeated names taken as diagonals.
fn operand(part: &str, x: &Tensor) -> Result<Named> {
    let letters = part.replace("...", "");
    let hidden = x.rank().checked_sub(letters.len());
    let hidden = match (hidden, part.contains("...")) {
        (Some(n), true) => n,
        (Some(0), false) => 0,
        _ => {
            return Err(Error::misuse(format!(
                "`{part}` does not name the {} dimensions of a tensor of shape {}",
                x.rank(),
                x.shape()
            )));
        }
    };
    let mut named = Named { tensor: x.clone(), names: names_of(part, hidden)? };
    while let Some((i, j)) = repeated(&named.names) {
        let (a, b) = (named.tensor.dims()[i], named.tensor.dims()[j]);
        if a != b {
            return Err(Error::misuse(format!(
                "`{}` names dimensions of {a} and of {b} places in `{part}`",
                named.names[i]
            )));
        }
        let name = named.names.remove(j);
        named.names.remove(i);
        named.tensor = named.tensor.try_diagonal(0, i as isize, j as isize)?;
        named.names.push(name);
    }
    Ok(named)
}

fn repeated(names: &[char]) -> Option<(usize, usize)> {
    (0..names.len()).find_map(|i| (i + 1..names.len()).find(|&j| names[i] == names[j]).map(|j| (i, j)))
}

/// The length of each name; of two lengths one may be 1, which stretches.
fn lengths(operands: &[Named]) -> Result<BTreeMap<char, usize>> {
    let mut lens = BTreeMap::new();
    for o in operands {
        for (&name, &len) in o.names.iter().zip(o.tensor.dims()) {
            let known = lens.entry(name).or_insert(len);
            if *known == 1 {
                *known = len;
            } else if len != 1 && len != *known {
                return Err(Error::misuse(format!(
                    "dimension `{name}` is {known} in one operand and {len} in another"
                )));
            }
        }
    }
    Ok(lens)
}

/// The result's names where the specification gives none: `...` first, then what is named once, in alphabetical order.
fn implied(operands: &[Named], counts: &BTreeMap<char, usize>) -> Vec<char> {
    let hidden = |c: &char| *c as u32 >= ELLIPSIS;
    let mut names: Vec<char> = operands.iter().flat_map(|o| &o.names).copied().filter(hidden).collect();
    names.sort_unstable_by(|a, b| b.cmp(a));
    names.dedup();
    names.extend(counts.iter().filter(|(c, n)| **n == 1 && !hidden(c)).map(|(c, _)| *c));
    names
}

impl Named {
    /// Summed over what is not `wanted`.
    fn summed(self, wanted: impl Fn(char) -> bool) -> Result<Named> {
        let dims: Vec<isize> = (0..self.names.len()).filter(|&i| !wanted(self.names[i])).map(|i| i as isize).collect();
        if dims.is_empty() {
            return Ok(self);
        }
        let names = self.names.iter().copied().filter(|&c| wanted(c)).collect();
        Ok(Named { tensor: self.tensor.try_sum_dims(&dims, false)?, names })
    }

    /// Without the dimensions of length 1 that are longer elsewhere.
    fn squeezed(self, lens: &BTreeMap<char, usize>) -> Result<Named> {
        let stretched = |i: usize| self.tensor.dims()[i] == 1 && lens[&self.names[i]] != 1;
        let kept: Vec<usize> = (0..self.names.len()).filter(|&i| !stretched(i)).collect();
        let dims: Vec<usize> = kept.iter().map(|&i| self.tensor.dims()[i]).collect();
        Ok(Named { tensor: self.tensor.try_reshape(dims)?, names: kept.iter().map(|&i| self.names[i]).collect() })
    }

    /// The dimensions in the order of three groups of names, each joined into one: `[a, b, c]`.
    fn joined(&self, groups: [&[char]; 3]) -> Result<Tensor> {
        let place = |c: &char| self.names.iter().position(|n| n == c);
        let order: Vec<usize> = groups.iter().flat_map(|g| g.iter().filter_map(place)).collect();
        let lens = groups.map(|g| g.iter().filter_map(place).map(|i| self.tensor.dims()[i]).product::<usize>());
        self.tensor.try_permute(&order.iter().map(|&i| i as isize).collect::<Vec<_>>())?.try_reshape(lens)
    }

    /// The product with another operand, summed over the names of both that are not `wanted` later.
    fn times(&self, other: &Named, lens: &BTreeMap<char, usize>, wanted: impl Fn(char) -> bool) -> Result<Named> {
        let both = |c: &char| other.names.contains(c);
        let part = |names: &[char], keep: &dyn Fn(char) -> bool| -> Vec<char> {
            names.iter().copied().filter(|&c| keep(c)).collect()
        };
        let batch = part(&self.names, &|c| both(&c) && wanted(c));
        let inner = part(&self.names, &|c| both(&c) && !wanted(c));
        let left = part(&self.names, &|c| !both(&c));
        let right = part(&other.names, &|c| !self.names.contains(&c));
        let product = if inner.is_empty() {
            let a = self.joined([&batch, &left, &[]])?;
            a.try_mul(&other.joined([&batch, &[], &right])?)?
        } else {
            self.joined([&batch, &left, &inner])?.try_matmul(&other.joined([&batch, &inner, &right])?)?
        };
        let names = [batch, left, right].concat();
        let dims: Vec<usize> = names.iter().map(|c| lens[c]).collect();
        Ok(Named { tensor: product.try_reshape(dims)?, names })
    }
}

fn evaluate(spec: &str, x: &[&Tensor]) -> Result<Tensor> {
    let spec: String = spec.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match spec.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (&spec[..], None),
    };
    let parts: Vec<&str> = left.split(',').collect();
    if parts.len() != x.len() {
        return Err(Error::misuse(format!("`{spec}` names {} operands; {} were given", parts.len(), x.len())));
    }
    let mut operands = parts.iter().zip(x).map(|(p, t)| operand(p, t)).collect::<Result<Vec<_>>>()?;
    let lens = lengths(&operands)?;
    let hidden = lens.keys().filter(|c| **c as u32 >= ELLIPSIS).count();
    let mut counts: BTreeMap<char, usize> = BTreeMap::new();
    left.chars().filter(char::is_ascii_alphabetic).for_each(|c| *counts.entry(c).or_default() += 1);
    let wanted = match right {
        Some(r) => names_of(r, hidden)?,
        None => implied(&operands, &counts),
    };
    if let Some((i, _)) = repeated(&wanted) {
        return Err(Error::misuse(format!("the result names `{}` twice", wanted[i])));
    }
    if let Some(c) = wanted.iter().find(|c| !lens.contains_key(c)) {
        return Err(Error::misuse(format!("the result's dimension `{c}` is in no operand")));
    }
    operands = operands.into_iter().map(|o| o.squeezed(&lens)).collect::<Result<Vec<_>>>()?;
    operands.reverse(); // the first ones are popped
    let Some(mut done) = operands.pop() else {
        return Err(Error::misuse("needs at least one tensor"));
    };
    while let Some(next) = operands.pop() {
        let later = |c: char| wanted.contains(&c) || operands.iter().any(|o| o.names.contains(&c));
        // What only one of the two names, and nobody later, is summed before they meet.
        let (a, b) = (done.names.clone(), next.names.clone());
        done = done.summed(|c| later(c) || b.contains(&c))?;
        let next = next.summed(|c| later(c) || a.contains(&c))?;
        done = done.times(&next, &lens, later)?;
    }
    done = done.summed(|c| wanted.contains(&c))?;
    let order: Vec<isize> =
        wanted.iter().filter_map(|c| done.names.iter().position(|n| n == c)).map(|i| i as isize).collect();
    done.tensor.try_permute(&order)
}

impl Tensor {
    /// Einstein's summation: each operand's dimensions are named by letters, and products are summed over the names that the
    /// result lacks: `"ij,jk->ik"` is a matrix product, `"ii"` a trace. `...` stands for any dimensions, which broadcast; without
    /// `->`, the result has the names that occur once, in alphabetical order. In PyTorch: `torch.einsum`.
    ///
    /// Panics at the caller's line on misuse.
    ///
    /// ```
    /// use gradus::prelude::*;
    /// let a = Tensor::arange(0, 6, 1, Device::cpu()).reshape([2, 3]);
    /// let b = Tensor::ones([4, 3], Device::cpu());
    /// assert_eq!(Tensor::einsum("ij,kj->ik", &[&a, &b]).dims(), [2, 4]);
    /// ```
    #[track_caller]
    pub fn einsum(spec: &str, operands: &[&Tensor]) -> Tensor {
        or_raise(Tensor::try_einsum(spec, operands))
    }

    /// As [`einsum`](Self::einsum), with misuse returned as an error.
    #[track_caller]
    pub fn try_einsum(spec: &str, operands: &[&Tensor]) -> Result<Tensor> {
        evaluate(spec, operands).map_err(|e| e.in_op("einsum", operands.iter().map(|t| (t.dtype(), *t.shape()))))
    }
}
