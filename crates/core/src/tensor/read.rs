//! Reading tensors back, and moving them between devices. These depend on the outside world, so they are always a `Result`.

use super::Tensor;
use crate::autodiff::{Aux, CallRule, Grads, Node, Rule, Vjp};
use crate::device::Device;
use crate::dtype::{DType, Element};
use crate::error::{Error, Result, or_raise};
use crate::op::Saves;
use crate::shape::Shape;

/// A tensor's elements on the host, native-endian and row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorData {
    /// The elements' type.
    pub dtype: DType,
    /// The dimensions.
    pub shape: Vec<usize>,
    /// The elements.
    pub bytes: Vec<u8>,
}

impl Tensor {
    /// The elements, row-major, converted to `T`'s dtype if it is another. Waits for the device.
    #[track_caller]
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        let t = self.detach().try_to_dtype(T::DTYPE)?;
        Ok(T::from_bytes(&t.to_bytes()?))
    }
    /// The elements' bytes, native-endian, row-major. Waits for the device.
    #[track_caller]
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        crate::capture::exchange(crate::capture::Exchange::Read)?;
        let mut bytes = vec![0; self.elements() * self.dtype().size()];
        self.device().backend().download(self.view(), &mut bytes)?;
        Ok(bytes)
    }
    /// The elements with what they are. Waits for the device.
    #[track_caller]
    pub fn to_data(&self) -> Result<TensorData> {
        Ok(TensorData { dtype: self.dtype(), shape: self.dims().to_vec(), bytes: self.to_bytes()? })
    }
    /// The only element, converted to `T`; an error if there are more or none. Waits for the device.
    #[track_caller]
    pub fn item<T: Element>(&self) -> Result<T> {
        if self.elements() != 1 {
            return Err(Error::misuse(format!(
                "item: needs exactly one element; this tensor has shape {}",
                self.shape()
            )));
        }
        let bytes = self.to_bytes()?;
        let t = TensorData { dtype: self.dtype(), shape: Vec::new(), bytes };
        Ok(if self.dtype().is_float() { T::from_f64(t.f64_at(0)) } else { T::from_i64(t.i64_at(0)) })
    }
    /// This tensor on another device; itself if it is there already. Gradients flow back through the move.
    #[track_caller]
    pub fn to(&self, device: Device) -> Tensor {
        or_raise(to_device(self, device))
    }
}

impl TensorData {
    /// These elements, row-major; an error if the shape does not hold exactly as many.
    pub fn try_new<T: Element>(data: &[T], shape: &[usize]) -> Result<TensorData> {
        let n = Shape::try_new(shape)?.checked_elements(T::DTYPE.size())?;
        if n != data.len() {
            return Err(Error::misuse(format!(
                "an array of shape {shape:?} has {n} elements; {} were given",
                data.len()
            )));
        }
        Ok(TensorData { dtype: T::DTYPE, shape: shape.to_vec(), bytes: T::bytes(data).to_vec() })
    }
    /// Element `i` (row-major) as `f64`.
    pub fn f64_at(&self, i: usize) -> f64 {
        let at = &self.bytes[i * self.dtype.size()..(i + 1) * self.dtype.size()];
        match self.dtype {
            DType::Bool | DType::U8 => at[0] as f64,
            DType::U32 => u32::from_bytes(at)[0] as f64,
            DType::I32 => i32::from_bytes(at)[0] as f64,
            DType::I64 => i64::from_bytes(at)[0] as f64,
            DType::F16 => half::f16::from_bytes(at)[0].to_f64(),
            DType::Bf16 => half::bf16::from_bytes(at)[0].to_f64(),
            DType::F32 => f32::from_bytes(at)[0] as f64,
            DType::F64 => f64::from_bytes(at)[0],
        }
    }
    /// Element `i` (row-major) as `i64`, truncated.
    pub fn i64_at(&self, i: usize) -> i64 {
        match self.dtype {
            DType::I64 => i64::from_bytes(&self.bytes[i * 8..(i + 1) * 8])[0],
            _ => self.f64_at(i) as i64,
        }
    }
}

/// A tensor on another device. See [`Tensor::to`].
#[track_caller]
pub fn to_device(x: &Tensor, device: Device) -> Result<Tensor> {
    if x.device() == device {
        return Ok(x.clone());
    }
    crate::capture::leave("a move between devices");
    let moved = Tensor::from_bytes(&x.to_bytes()?, *x.shape(), device.with(x.dtype()))?;
    if !crate::autodiff::records(&[x]) {
        return Ok(moved);
    }
    let mut out = Node::call(CallRule::of(Move), &[x], Saves::NOTHING, Aux::new(), smallvec::smallvec![moved.value]);
    out.pop().ok_or_else(|| Error::misuse("a move gave no tensor"))
}

#[derive(Debug)]
struct Move;
impl Rule for Move {
    fn name(&self) -> &'static str {
        "to"
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Grads {
        // The input's node knows where the gradient has to go back to.
        let home = cx.call.inputs[0].as_ref().map_or(cx.device(), |n| n.device);
        smallvec::smallvec![Some(cx.grad().to(home))]
    }
}
