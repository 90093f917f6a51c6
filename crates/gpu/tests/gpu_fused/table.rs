//! The table of `docs/gpu.md`.

use crate::adapter::{devices, turn};
use gradus_core::functional::all_finite::AllFinite;
use gradus_core::functional::attention::{Attention, AttentionGrad};
use gradus_core::functional::batch_norm::{BatchNorm, BatchNormGrad, BatchNormRelu, BatchNormReluGrad, ChannelAffine};
use gradus_core::functional::chain::Chain;
use gradus_core::functional::conv::{Conv, ConvInputGrad, ConvThen, ConvWeightGrad};
use gradus_core::functional::dropout::{Dropout, DropoutGrad};
use gradus_core::functional::global_norm::GlobalNorm;
use gradus_core::functional::group_norm::{GroupNorm, GroupNormGrad, GroupNormRelu, GroupNormReluGrad};
use gradus_core::functional::gru::{GruStep, GruStepGrad};
use gradus_core::functional::gru_sequence::{GruSequence, GruSequenceGrad};
use gradus_core::functional::lerp::Lerp;
use gradus_core::functional::linear::Linear;
use gradus_core::functional::loss::{CrossEntropy, CrossEntropyGrad};
use gradus_core::functional::lstm::{LstmStep, LstmStepGrad};
use gradus_core::functional::lstm_sequence::{LstmGateGrad, LstmSequence, LstmSequenceGrad, LstmWeightGrad};
use gradus_core::functional::newton_schulz::NewtonSchulzSum;
use gradus_core::functional::norm::{AddLayerNorm, LayerNorm, LayerNormGrad};
use gradus_core::functional::pool::{AvgPool, AvgPoolGrad, MaxPool, MaxPoolGrad};
use gradus_core::functional::rms_norm::{AddRmsNorm, RmsNorm, RmsNormGrad};
use gradus_core::functional::rotary::Rotary;
use gradus_core::functional::running_average::RunningAverage;
use gradus_core::functional::softmax::{LogSoftmax, LogSoftmaxGrad, Softmax, SoftmaxGrad};
use gradus_core::functional::special::{Lgamma, Polygamma};
use gradus_core::functional::swiglu::{SwiGlu, SwiGluGrad};
use gradus_core::functional::update::{AdamUpdate, LionUpdate, MomentumUpdate, MuonUpdate, SgdUpdate};
use gradus_core::ops::UnaryGrad;

/// The table of `docs/gpu.md`: which device fuses what.
#[test]
fn the_table_of_fused_kernels_in_the_documentation_is_current() {
    let _turn = turn();
    let cpu = gradus_cpu::device().backend().kernels();
    let Some(device) = devices().into_iter().next() else { return };
    let gpu = device.backend().kernels();
    let mut page = String::from("| composite | CPU | GPU |\n|---|---|---|\n");
    let mut row = |name: &str, on: [bool; 2]| {
        let [cpu, gpu] = on.map(|has| if has { "fused" } else { "by definition" });
        page += &format!("| `{name}` | {cpu} | {gpu} |\n");
    };
    macro_rules! composites {
        ($($name:ty),*) => { $(row(stringify!($name), [cpu.has::<$name>(), gpu.has::<$name>()]);)* };
    }
    composites!(
        AddLayerNorm,
        AddRmsNorm,
        AllFinite,
        Attention,
        AttentionGrad,
        AvgPool,
        AvgPoolGrad,
        BatchNorm,
        BatchNormGrad,
        BatchNormRelu,
        BatchNormReluGrad,
        Chain,
        ChannelAffine,
        Conv,
        ConvInputGrad,
        ConvThen<Conv>,
        ConvThen<ConvInputGrad>,
        ConvWeightGrad,
        CrossEntropy,
        CrossEntropyGrad,
        Dropout,
        DropoutGrad,
        GlobalNorm,
        GroupNorm,
        GroupNormGrad,
        GroupNormRelu,
        GroupNormReluGrad,
        GruSequence,
        GruSequenceGrad,
        GruStep,
        GruStepGrad,
        LayerNorm,
        LayerNormGrad,
        Lerp,
        Lgamma,
        Linear,
        LogSoftmax,
        LogSoftmaxGrad,
        LstmGateGrad,
        LstmSequence,
        LstmSequenceGrad,
        LstmStep,
        LstmStepGrad,
        LstmWeightGrad,
        MaxPool,
        MaxPoolGrad,
        NewtonSchulzSum,
        Polygamma,
        RmsNorm,
        RmsNormGrad,
        Rotary,
        RunningAverage,
        Softmax,
        SoftmaxGrad,
        SwiGlu,
        SwiGluGrad,
        UnaryGrad
    );
    macro_rules! updates {
        ($($name:ident),*) => { $(row(stringify!($name), [cpu.has_update::<$name>(), gpu.has_update::<$name>()]);)* };
    }
    updates!(AdamUpdate, LionUpdate, MomentumUpdate, MuonUpdate, SgdUpdate);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/gpu.md");
    let text = std::fs::read_to_string(path).expect("docs/gpu.md is there");
    let begin = text.find("| composite |").expect("the page has the table");
    let end = begin + text[begin..].find("\n\n").map_or(text.len() - begin, |n| n + 1);
    if std::env::var_os("GRADUS_WRITE_DOCS").is_some() {
        std::fs::write(path, format!("{}{page}{}", &text[..begin], &text[end..])).expect("docs/gpu.md can be written");
        return;
    }
    assert_eq!(&text[begin..end], page, "write it with GRADUS_WRITE_DOCS=1 and this test");
}
