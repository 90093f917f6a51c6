//! The geometry of windows as a kernel's argument.

use crate::runtime::GpuRuntime;
use cubecl::prelude::SequenceArg;
use gradus_core::functional::window::Window;
use gradus_kernels::window::WindowsLaunch;

/// The lengths of the spatial dimensions that there are.
pub(super) fn spatial<R: GpuRuntime>(lens: &[usize; 3], rank: usize) -> SequenceArg<R, usize> {
    lens[..rank].iter().copied().collect()
}

pub(super) fn windows<R: GpuRuntime>(w: &Window) -> WindowsLaunch<R> {
    let of = |lens: &[usize; 3]| spatial::<R>(lens, w.rank);
    WindowsLaunch::new(of(&w.input), of(&w.output), of(&w.size), of(&w.stride), of(&w.before), of(&w.dilation))
}
