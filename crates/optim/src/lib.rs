//! Optimizers, schedules and gradient transforms of Gradus.
//!
//! An [`Optimizer`] is a rule, schedules and transforms around it, and state under the parameters' names.
//!
//! | for | see |
//! |---|---|
//! | update rules | [`Sgd`], [`Adam`], [`AdamW`]; one's own: [`Rule`] |
//! | settings by parameter name | [`Group`], [`Pattern`] |
//! | the learning rate's course | [`Constant`], [`StepDecay`], [`Exponential`], [`Warmup`], [`Cosine`], [`OneCycle`], [`Lambda`]; one's own: [`Schedule`] |
//! | penalties and clipping | [`L1`], [`L2`], [`ElasticNet`], [`ClipNorm`], [`ClipValue`]; one's own: [`Transform`] |
//! | saving and loading | [`Optimizer::state_dict`], [`Optimizer::load_state_dict`] |
//!
//! ```
//! use gradus_core::{Result, Tensor};
//! use gradus_nn::{Module, Param};
//! use gradus_optim::{AdamW, ClipNorm, Cosine, Group, Rule};
//!
//! fn main() -> Result<()> {
//!     let device = gradus_cpu::device();
//!     let mut w = vec![Param::new(Tensor::ones([3], device)), Param::new(Tensor::zeros([1], device))];
//!     let mut optimizer = AdamW::new(0.1)
//!         .optimizer()
//!         .group(Group::matching("1").weight_decay(0.0))
//!         .transform(ClipNorm::new(1.0))
//!         .schedule(Cosine::warmup(10, 200))
//!         .build(&w)?;
//!     for _ in 0..200 {
//!         w.zero_grad();
//!         let loss = ((&*w[0] - 2.0).square() + &*w[1]).square().sum();
//!         loss.backward();
//!         optimizer.step(&mut w)?;
//!     }
//!     assert!((w[0].to_vec::<f32>()?[0] - 2.0).abs() < 0.5);
//!     Ok(())
//! }
//! ```

mod adam;
mod builder;
mod clip;
mod cosine;
mod demand;
mod group;
mod one_cycle;
mod optimizer;
mod pattern;
mod penalty;
mod rule;
mod schedule;
mod sgd;
mod state;
mod transform;

pub use adam::{Adam, AdamW};
pub use builder::OptimizerBuilder;
pub use clip::{ClipNorm, ClipValue, gradient_norm};
pub use cosine::Cosine;
pub use group::Group;
pub use one_cycle::OneCycle;
pub use optimizer::{Optimizer, StepReport};
pub use pattern::{Pattern, Selection};
pub use penalty::{ElasticNet, L1, L2};
pub use rule::{At, Call, Numbers, Rule};
pub use schedule::{Constant, Exponential, Lambda, Schedule, StepDecay, Warmup};
pub use sgd::Sgd;
pub use state::OptimizerState;
pub use transform::{NamedGrad, NamedGrads, Notes, Transform};

/// What most programs need of this crate.
pub mod prelude {
    pub use crate::{
        Adam, AdamW, ClipNorm, ClipValue, Cosine, ElasticNet, Exponential, Group, L1, L2, OneCycle, Optimizer,
        OptimizerBuilder, Rule, Schedule, Sgd, StepDecay, Transform, Warmup,
    };
}
