//! Optimizers, schedules and gradient transforms of Gradus.
//!
//! An [`Optimizer`] is a rule, schedules and transforms around it, and state under the parameters' names.
//!
//! | for | see |
//! |---|---|
//! | update rules | [`Sgd`], [`Adam`], [`AdamW`], [`NAdam`], [`RAdam`], [`Adamax`], [`Adagrad`], [`Adadelta`], [`RmsProp`], [`Rprop`], [`Asgd`], [`Lion`], [`Lamb`], [`Adafactor`], [`Muon`], [`ScheduleFreeAdamW`]; one's own: [`Rule`] |
//! | a method that asks for the loss itself | [`Lbfgs`] |
//! | settings, and rules, by parameter name | [`Group`], [`Pattern`] |
//! | the learning rate's course | [`Constant`], [`ConstantFactor`], [`StepDecay`], [`MultiStep`], [`Exponential`], [`LinearRamp`], [`Polynomial`], [`Warmup`], [`Cosine`], [`CosineRestarts`], [`Cyclic`], [`OneCycle`], [`Lambda`], [`Multiplicative`]; in turn or at once: [`SequentialSchedule`], [`ChainedSchedule`]; one's own: [`Schedule`] |
//! | a rate that falls when a measured value stays | [`Plateau`] |
//! | penalties on the weights | [`L1`], [`L2`], [`ElasticNet`], [`GroupLasso`], [`Orthogonal`] |
//! | clipping and noise | [`ClipNorm`], [`ClipValue`], [`GradientNoise`]; one's own: [`Transform`] |
//! | conditions on the weights | [`MaxNorm`], [`UnitNorm`], [`NonNegative`]; one's own: [`Constraint`] |
//! | averages of the weights | [`WeightAverage`], [`Optimizer::evaluation_weights`], [`with_weights`] |
//! | gradients within the range of `f16` | [`LossScale`] |
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

mod average;
mod builder;
mod constraints;
mod demand;
mod evaluation;
mod group;
mod lbfgs;
mod loss_scale;
mod optimizer;
mod pattern;
mod rule;
mod rules;
mod schedules;
mod state;
mod transforms;

pub use average::WeightAverage;
pub use builder::OptimizerBuilder;
pub use constraints::{Constraint, MaxNorm, NonNegative, UnitNorm};
pub use evaluation::with_weights;
pub use group::Group;
pub use lbfgs::Lbfgs;
pub use loss_scale::LossScale;
pub use optimizer::{Optimizer, StepReport};
pub use pattern::{Pattern, Selection};
pub use rule::{At, Call, Numbers, Rule};
pub use rules::{
    Adadelta, Adafactor, Adagrad, Adam, AdamW, Adamax, Asgd, Lamb, Lion, Muon, MuonScale, NAdam, RAdam, RmsProp, Rprop,
    ScheduleFreeAdamW, Sgd,
};
pub use schedules::{
    ChainedSchedule, Constant, ConstantFactor, Cosine, CosineRestarts, Cyclic, Exponential, Lambda, LinearRamp,
    MultiStep, Multiplicative, OneCycle, Plateau, Polynomial, Schedule, SequentialSchedule, StepDecay, Warmup,
};
pub use state::OptimizerState;
pub use transforms::{
    ClipNorm, ClipValue, ElasticNet, GradientNoise, GroupLasso, L1, L2, NamedGrad, NamedGrads, Notes, Orthogonal,
    Transform, gradient_norm, penalty_of, scaled_gradient_norm,
};

/// What most programs need of this crate.
pub mod prelude {
    pub use crate::{
        Adafactor, Adam, AdamW, ClipNorm, ClipValue, Cosine, ElasticNet, Exponential, Group, L1, L2, Lbfgs, Lion,
        LossScale, Muon, NAdam, OneCycle, Optimizer, OptimizerBuilder, Plateau, RmsProp, Rule, Schedule, Sgd,
        StepDecay, Transform, Warmup, WeightAverage, with_weights,
    };
}
