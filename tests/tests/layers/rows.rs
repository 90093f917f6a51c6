//! The table of layers, family by family.

use super::{Row, indexed, indices, layer, losses, ones, shown};
use gradus_core::functional::attention::AttentionOptions;
use gradus_core::functional::interpolate::InterpolateMode;
use gradus_nn::*;

macro_rules! rows {
    ($($name:ident, $torch:literal, $formula:literal, |$init:ident| $show:expr;)*) => {
        vec![$(Row {
            name: stringify!($name),
            torch: $torch,
            formula: $formula,
            show: |#[allow(unused_variables)] $init| $show,
        }),*]
    };
}
pub(super) use rows;

/// Every family with its rows.
pub(super) fn families() -> Vec<(&'static str, Vec<Row>)> {
    vec![
        ("Matrices and tables", matrices()),
        ("Convolutions", convolutions()),
        ("Pools", pools()),
        ("Adaptive and fractional pools", adaptive_pools()),
        ("Paddings", paddings()),
        ("Shapes and places", shapes()),
        ("Normalization", norms()),
        ("Recurrent layers", recurrent()),
        ("Attention and transformers", attention()),
        ("Activations", activations()),
        ("Dropout and noise", dropouts()),
        ("Adapters", adapters()),
        ("Losses", losses::losses()),
    ]
}

fn matrices() -> Vec<Row> {
    rows! {
        Linear, "torch.nn.Linear", "x·Wᵀ + b", |i| layer(Linear::new(4, 3, i), &[2, 4]);
        Bilinear, "torch.nn.Bilinear", "yₒ = aᵀ·Wₒ·b + biasₒ", |i| {
            let (a, b) = (ones(&[2, 4]), ones(&[2, 3]));
            shown(Bilinear::new(4, 3, 5, i), &[&a, &b], |l, cx| Ok(vec![l.pair(&a, &b, cx)]))
        };
        Identity, "torch.nn.Identity", "x", |i| layer(Identity, &[2, 4]);
        Embedding, "torch.nn.Embedding", "row i of the table for each index i", |i| indexed(Embedding::new(10, 4, i), &[2, 3]);
        EmbeddingBag, "torch.nn.EmbeddingBag", "the sum, mean or maximum of the rows of each bag", |i| indexed(EmbeddingBag::new(10, 4, BagMode::Sum, i), &[2, 3]);
        GatedFeedForward, "", "(silu(x·W_gateᵀ)·x·W_upᵀ)·W_downᵀ: SwiGLU with its matrices", |i| layer(GatedFeedForward::new(4, 6, i), &[2, 4]);
        CosineSimilarity, "torch.nn.CosineSimilarity", "⟨a, b⟩/(max(‖a‖, eps)·max(‖b‖, eps))", |i| {
            let a = ones(&[2, 4]);
            shown(CosineSimilarity::new(1), &[&a, &a], |l, cx| Ok(vec![l.pair(&a, &a, cx)]))
        };
        PairwiseDistance, "torch.nn.PairwiseDistance", "‖a − b + eps‖ₚ", |i| {
            let a = ones(&[2, 4]);
            shown(PairwiseDistance::new(2.0), &[&a, &a], |l, cx| Ok(vec![l.pair(&a, &a, cx)]))
        };
        Sequential, "torch.nn.Sequential", "its layers, one after another", |i| layer(Sequential::new().add(Linear::new(4, 3, i)).add(Relu), &[2, 4]);
    }
}

fn convolutions() -> Vec<Row> {
    rows! {
        Conv1d, "torch.nn.Conv1d", "convolution; L → ⌊(L + 2·padding − dilation·(kernel − 1) − 1)/stride⌋ + 1", |i| layer(Conv1d::new(3, 5, 3, i), &[2, 3, 6]);
        Conv2d, "torch.nn.Conv2d", "convolution; L → ⌊(L + 2·padding − dilation·(kernel − 1) − 1)/stride⌋ + 1", |i| layer(Conv2d::new(3, 5, 3, i), &[2, 3, 6, 6]);
        Conv3d, "torch.nn.Conv3d", "convolution; L → ⌊(L + 2·padding − dilation·(kernel − 1) − 1)/stride⌋ + 1", |i| layer(Conv3d::new(3, 5, 3, i), &[2, 3, 4, 4, 4]);
        ConvTranspose1d, "torch.nn.ConvTranspose1d", "its adjoint; L → (L − 1)·stride − 2·padding + dilation·(kernel − 1) + output padding + 1", |i| layer(ConvTranspose1d::new(3, 5, 3, i), &[2, 3, 6]);
        ConvTranspose2d, "torch.nn.ConvTranspose2d", "its adjoint; L → (L − 1)·stride − 2·padding + dilation·(kernel − 1) + output padding + 1", |i| layer(ConvTranspose2d::new(3, 5, 3, i), &[2, 3, 6, 6]);
        ConvTranspose3d, "torch.nn.ConvTranspose3d", "its adjoint; L → (L − 1)·stride − 2·padding + dilation·(kernel − 1) + output padding + 1", |i| layer(ConvTranspose3d::new(3, 5, 3, i), &[2, 3, 4, 4, 4]);
        WeightNorm, "torch.nn.utils.parametrizations.weight_norm", "a layer with the weight g·v/‖v‖", |i| layer(WeightNorm::new(Conv1d::new(3, 5, 3, i)), &[2, 3, 6]);
        SpectralNorm, "torch.nn.utils.parametrizations.spectral_norm", "a layer with the weight W/σ, σ its largest singular value", |i| layer(SpectralNorm::new(Linear::new(4, 3, i), i), &[2, 4]);
    }
}

fn pools() -> Vec<Row> {
    rows! {
        MaxPool1d, "torch.nn.MaxPool1d", "the largest of each window", |i| layer(MaxPool1d::new(2), &[2, 3, 6]);
        MaxPool2d, "torch.nn.MaxPool2d", "the largest of each window", |i| layer(MaxPool2d::new(2), &[2, 3, 6, 6]);
        MaxPool3d, "torch.nn.MaxPool3d", "the largest of each window", |i| layer(MaxPool3d::new(2), &[2, 3, 4, 4, 4]);
        AvgPool1d, "torch.nn.AvgPool1d", "the mean of each window", |i| layer(AvgPool1d::new(2), &[2, 3, 6]);
        AvgPool2d, "torch.nn.AvgPool2d", "the mean of each window", |i| layer(AvgPool2d::new(2), &[2, 3, 6, 6]);
        AvgPool3d, "torch.nn.AvgPool3d", "the mean of each window", |i| layer(AvgPool3d::new(2), &[2, 3, 4, 4, 4]);
        LpPool1d, "torch.nn.LPPool1d", "(Σ xᵖ)^(1/p) of each window", |i| layer(LpPool1d::new(2.0, 2), &[2, 3, 6]);
        LpPool2d, "torch.nn.LPPool2d", "(Σ xᵖ)^(1/p) of each window", |i| layer(LpPool2d::new(2.0, 2), &[2, 3, 6, 6]);
        LpPool3d, "torch.nn.LPPool3d", "(Σ xᵖ)^(1/p) of each window", |i| layer(LpPool3d::new(2.0, 2), &[2, 3, 4, 4, 4]);
        MaxUnpool1d, "torch.nn.MaxUnpool1d", "zeros, with each value in the place it was the largest of", |i| {
            let (y, at) = MaxPool1d::new(2).with_indices(&ones(&[2, 3, 6]), &Cx::eval());
            shown(MaxUnpool1d::new(2), &[&y, &at], |l, cx| Ok(vec![l.place(&y, &at, None, cx)]))
        };
        MaxUnpool2d, "torch.nn.MaxUnpool2d", "zeros, with each value in the place it was the largest of", |i| {
            let (y, at) = MaxPool2d::new(2).with_indices(&ones(&[2, 3, 6, 6]), &Cx::eval());
            shown(MaxUnpool2d::new(2), &[&y, &at], |l, cx| Ok(vec![l.place(&y, &at, None, cx)]))
        };
        MaxUnpool3d, "torch.nn.MaxUnpool3d", "zeros, with each value in the place it was the largest of", |i| {
            let (y, at) = MaxPool3d::new(2).with_indices(&ones(&[2, 3, 4, 4, 4]), &Cx::eval());
            shown(MaxUnpool3d::new(2), &[&y, &at], |l, cx| Ok(vec![l.place(&y, &at, None, cx)]))
        };
    }
}

fn adaptive_pools() -> Vec<Row> {
    rows! {
        AdaptiveAvgPool1d, "torch.nn.AdaptiveAvgPool1d", "means of n windows, ⌊o·L/n⌋ to ⌈(o+1)·L/n⌉", |i| layer(AdaptiveAvgPool1d::new(4), &[2, 3, 7]);
        AdaptiveAvgPool2d, "torch.nn.AdaptiveAvgPool2d", "means of n windows, ⌊o·L/n⌋ to ⌈(o+1)·L/n⌉", |i| layer(AdaptiveAvgPool2d::new(4), &[2, 3, 7, 7]);
        AdaptiveAvgPool3d, "torch.nn.AdaptiveAvgPool3d", "means of n windows, ⌊o·L/n⌋ to ⌈(o+1)·L/n⌉", |i| layer(AdaptiveAvgPool3d::new(2), &[2, 3, 5, 5, 5]);
        AdaptiveMaxPool1d, "torch.nn.AdaptiveMaxPool1d", "the largest of n windows, ⌊o·L/n⌋ to ⌈(o+1)·L/n⌉", |i| layer(AdaptiveMaxPool1d::new(4), &[2, 3, 7]);
        AdaptiveMaxPool2d, "torch.nn.AdaptiveMaxPool2d", "the largest of n windows, ⌊o·L/n⌋ to ⌈(o+1)·L/n⌉", |i| layer(AdaptiveMaxPool2d::new(4), &[2, 3, 7, 7]);
        AdaptiveMaxPool3d, "torch.nn.AdaptiveMaxPool3d", "the largest of n windows, ⌊o·L/n⌋ to ⌈(o+1)·L/n⌉", |i| layer(AdaptiveMaxPool3d::new(2), &[2, 3, 5, 5, 5]);
        FractionalMaxPool2d, "torch.nn.FractionalMaxPool2d", "the largest of n windows at pseudo-random places", |i| layer(FractionalMaxPool2d::new(2, 4), &[2, 3, 7, 7]);
        FractionalMaxPool3d, "torch.nn.FractionalMaxPool3d", "the largest of n windows at pseudo-random places", |i| layer(FractionalMaxPool3d::new(2, 3), &[2, 3, 5, 5, 5]);
    }
}

fn paddings() -> Vec<Row> {
    rows! {
        ConstantPad1d, "torch.nn.ConstantPad1d", "a number around x", |i| layer(ConstantPad1d::new(1, 0.5), &[2, 3, 4]);
        ConstantPad2d, "torch.nn.ConstantPad2d", "a number around x", |i| layer(ConstantPad2d::new(1, 0.5), &[2, 3, 4, 4]);
        ConstantPad3d, "torch.nn.ConstantPad3d", "a number around x", |i| layer(ConstantPad3d::new(1, 0.5), &[2, 3, 4, 4, 4]);
        ZeroPad1d, "torch.nn.ZeroPad1d", "zeros around x", |i| layer(ZeroPad1d::new(1), &[2, 3, 4]);
        ZeroPad2d, "torch.nn.ZeroPad2d", "zeros around x", |i| layer(ZeroPad2d::new(1), &[2, 3, 4, 4]);
        ZeroPad3d, "torch.nn.ZeroPad3d", "zeros around x", |i| layer(ZeroPad3d::new(1), &[2, 3, 4, 4, 4]);
        ReflectionPad1d, "torch.nn.ReflectionPad1d", "x mirrored at its border", |i| layer(ReflectionPad1d::new(1), &[2, 3, 4]);
        ReflectionPad2d, "torch.nn.ReflectionPad2d", "x mirrored at its border", |i| layer(ReflectionPad2d::new(1), &[2, 3, 4, 4]);
        ReflectionPad3d, "torch.nn.ReflectionPad3d", "x mirrored at its border", |i| layer(ReflectionPad3d::new(1), &[2, 3, 4, 4, 4]);
        ReplicationPad1d, "torch.nn.ReplicationPad1d", "x's border repeated", |i| layer(ReplicationPad1d::new(1), &[2, 3, 4]);
        ReplicationPad2d, "torch.nn.ReplicationPad2d", "x's border repeated", |i| layer(ReplicationPad2d::new(1), &[2, 3, 4, 4]);
        ReplicationPad3d, "torch.nn.ReplicationPad3d", "x's border repeated", |i| layer(ReplicationPad3d::new(1), &[2, 3, 4, 4, 4]);
        CircularPad1d, "torch.nn.CircularPad1d", "x from its other end", |i| layer(CircularPad1d::new(1), &[2, 3, 4]);
        CircularPad2d, "torch.nn.CircularPad2d", "x from its other end", |i| layer(CircularPad2d::new(1), &[2, 3, 4, 4]);
        CircularPad3d, "torch.nn.CircularPad3d", "x from its other end", |i| layer(CircularPad3d::new(1), &[2, 3, 4, 4, 4]);
    }
}

fn shapes() -> Vec<Row> {
    rows! {
        Flatten, "torch.nn.Flatten", "several dimensions as one", |i| layer(Flatten::default(), &[2, 3, 4]);
        Unflatten, "torch.nn.Unflatten", "one dimension as several", |i| layer(Unflatten::new(1, [3, 4]), &[2, 12]);
        Unfold, "torch.nn.Unfold", "patches as columns", |i| layer(Unfold::new(2), &[2, 3, 4, 4]);
        Fold, "torch.nn.Fold", "columns of patches summed into images", |i| layer(Fold::new([4, 4], 2), &[2, 12, 9]);
        PixelShuffle, "torch.nn.PixelShuffle", "channels·r² → height·r, width·r", |i| layer(PixelShuffle::new(2), &[2, 12, 3, 3]);
        PixelUnshuffle, "torch.nn.PixelUnshuffle", "height·r, width·r → channels·r²", |i| layer(PixelUnshuffle::new(2), &[2, 3, 6, 6]);
        ChannelShuffle, "torch.nn.ChannelShuffle", "channels of groups dealt out in turn", |i| layer(ChannelShuffle::new(2), &[2, 4, 3, 3]);
        Upsample, "torch.nn.Upsample", "places resized: nearest, linear, cubic or area", |i| layer(Upsample::by(2.0, InterpolateMode::Linear), &[2, 3, 4, 4]);
    }
}

fn norms() -> Vec<Row> {
    rows! {
        BatchNorm1d, "torch.nn.BatchNorm1d", "(x − mean)/√(var + eps)·w + b by channel, over the batch", |i| layer(BatchNorm1d::new(3, i), &[2, 3, 4]);
        BatchNorm2d, "torch.nn.BatchNorm2d", "(x − mean)/√(var + eps)·w + b by channel, over the batch", |i| layer(BatchNorm2d::new(3, i), &[2, 3, 4, 4]);
        BatchNorm3d, "torch.nn.BatchNorm3d", "(x − mean)/√(var + eps)·w + b by channel, over the batch", |i| layer(BatchNorm3d::new(3, i), &[2, 3, 4, 4, 4]);
        InstanceNorm1d, "torch.nn.InstanceNorm1d", "the same by channel of each element", |i| layer(InstanceNorm1d::new(3, i).affine(i), &[2, 3, 4]);
        InstanceNorm2d, "torch.nn.InstanceNorm2d", "the same by channel of each element", |i| layer(InstanceNorm2d::new(3, i).affine(i), &[2, 3, 4, 4]);
        InstanceNorm3d, "torch.nn.InstanceNorm3d", "the same by channel of each element", |i| layer(InstanceNorm3d::new(3, i).affine(i), &[2, 3, 4, 4, 4]);
        LayerNorm, "torch.nn.LayerNorm", "(x − mean)/√(var + eps)·w + b over trailing dimensions", |i| layer(LayerNorm::new(4, i), &[2, 4]);
        GroupNorm, "torch.nn.GroupNorm", "the same over groups of channels", |i| layer(GroupNorm::new(2, 4, i), &[2, 4, 3]);
        RmsNorm, "torch.nn.RMSNorm", "x/√(mean(x²) + eps)·w over trailing dimensions", |i| layer(RmsNorm::new(4, i), &[2, 4]);
        LocalResponseNorm, "torch.nn.LocalResponseNorm", "x/(k + alpha·m)^beta, m the mean of x² over neighbouring channels", |i| layer(LocalResponseNorm::new(2), &[2, 4, 3]);
    }
}

fn recurrent() -> Vec<Row> {
    rows! {
        Rnn, "torch.nn.RNN", "h ← act(W_ih·x + b_ih + W_hh·h + b_hh)", |i| layer(Rnn::new((4, 3), i), &[2, 5, 4]);
        Gru, "torch.nn.GRU", "h ← (1 − z)·n + z·h, n = tanh(W_in·x + b_in + r·(W_hn·h + b_hn))", |i| layer(Gru::new((4, 3), i), &[2, 5, 4]);
        Lstm, "torch.nn.LSTM", "c ← f·c + i·g, h ← o·tanh(c)", |i| layer(Lstm::new(RecurrentOptions::new(4, 3).layers(2).bidirectional(), i), &[2, 5, 4]);
        RnnCell, "torch.nn.RNNCell", "one step of an RNN", |i| {
            let x = ones(&[2, 4]);
            shown(RnnCell::new(4, 3, i), &[&x], |l, _| Ok(vec![l.try_forward(&x, None)?]))
        };
        GruCell, "torch.nn.GRUCell", "one step of a GRU", |i| {
            let x = ones(&[2, 4]);
            shown(GruCell::new(4, 3, i), &[&x], |l, _| Ok(vec![l.try_forward(&x, None)?]))
        };
        LstmCell, "torch.nn.LSTMCell", "one step of an LSTM", |i| {
            let x = ones(&[2, 4]);
            shown(LstmCell::new(4, 3, i), &[&x], |l, _| l.try_forward(&x, None).map(|s| vec![s.h, s.c]))
        };
    }
}

fn attention() -> Vec<Row> {
    rows! {
        MultiheadAttention, "torch.nn.MultiheadAttention", "concat(softmax(qᵢ·kᵢᵀ/√(width/heads))·vᵢ)·Wₒᵀ + bₒ", |i| layer(MultiheadAttention::new(8, 2, i), &[2, 5, 8]);
        GroupedQueryAttention, "", "causal attention whose heads of queries share heads of keys and values; rotary positions, a cache", |i| layer(GroupedQueryAttention::new(8, 4, 2, i).rotary(RotaryEmbedding::new(2)), &[2, 5, 8]);
        RotaryEmbedding, "", "pairs of numbers turned by position·base^(−2i/width)", |i| {
            let x = ones(&[2, 4, 5, 8]);
            shown(RotaryEmbedding::new(8), &[&x], |l, _| Ok(vec![l.try_rotate(&x, 0)?]))
        };
        TransformerEncoderLayer, "torch.nn.TransformerEncoderLayer", "x ← norm1(x + attention(x)), x ← norm2(x + feed_forward(x))", |i| layer(TransformerEncoderLayer::new(options(), i), &[2, 5, 8]);
        TransformerDecoderLayer, "torch.nn.TransformerDecoderLayer", "the same with attention to a memory between", |i| {
            let (x, memory, none) = (ones(&[2, 5, 8]), ones(&[2, 7, 8]), AttentionMask::none());
            shown(TransformerDecoderLayer::new(options(), i), &[&x, &memory], |l, cx| Ok(vec![l.try_run(&x, &memory, &none, &none, cx)?]))
        };
        TransformerEncoder, "torch.nn.TransformerEncoder", "encoder layers one after another", |i| layer(TransformerEncoder::new(options(), 1, i), &[2, 5, 8]);
        TransformerDecoder, "torch.nn.TransformerDecoder", "decoder layers one after another", |i| {
            let (x, memory, none) = (ones(&[2, 5, 8]), ones(&[2, 7, 8]), AttentionMask::none());
            shown(TransformerDecoder::new(options(), 1, i), &[&x, &memory], |l, cx| Ok(vec![l.run(&x, &memory, &none, &none, cx)]))
        };
        Transformer, "torch.nn.Transformer", "an encoder, and a decoder that attends to it", |i| {
            let (x, y, none) = (ones(&[2, 7, 8]), ones(&[2, 5, 8]), AttentionMask::none());
            shown(Transformer::new(options(), 1, 1, i), &[&x, &y], |l, cx| Ok(vec![l.run(&x, &y, [&none, &none, &none], cx)]))
        };
    }
}

fn options() -> TransformerOptions {
    TransformerOptions::new(8, 2).feed_forward(16)
}

fn activations() -> Vec<Row> {
    rows! {
        Relu, "torch.nn.ReLU", "max(x, 0)", |i| layer(Relu, &[2, 4]);
        Relu6, "torch.nn.ReLU6", "min(max(x, 0), 6)", |i| layer(Relu6, &[2, 4]);
        LeakyRelu, "torch.nn.LeakyReLU", "x where x > 0, else slope·x", |i| layer(LeakyRelu::default(), &[2, 4]);
        Prelu, "torch.nn.PReLU", "x where x > 0, else w·x", |i| layer(Prelu::new(4, i), &[2, 4]);
        RandomRelu, "torch.nn.RReLU", "x where x > 0, else a·x, a drawn in training", |i| layer(RandomRelu::default(), &[2, 4]);
        Elu, "torch.nn.ELU", "x where x > 0, else alpha·(eˣ − 1)", |i| layer(Elu::default(), &[2, 4]);
        Celu, "torch.nn.CELU", "max(x, 0) + min(alpha·(e^(x/alpha) − 1), 0)", |i| layer(Celu::default(), &[2, 4]);
        Selu, "torch.nn.SELU", "λ·(x where x > 0, else α·(eˣ − 1))", |i| layer(Selu, &[2, 4]);
        Gelu, "torch.nn.GELU", "x·Φ(x)", |i| layer(Gelu, &[2, 4]);
        GeluTanh, "torch.nn.GELU(approximate='tanh')", "x·Φ(x), with tanh in Φ's place", |i| layer(GeluTanh, &[2, 4]);
        Silu, "torch.nn.SiLU", "x·sigmoid(x)", |i| layer(Silu, &[2, 4]);
        Mish, "torch.nn.Mish", "x·tanh(softplus(x))", |i| layer(Mish, &[2, 4]);
        Tanh, "torch.nn.Tanh", "tanh(x)", |i| layer(Tanh, &[2, 4]);
        Sigmoid, "torch.nn.Sigmoid", "1/(1 + e⁻ˣ)", |i| layer(Sigmoid, &[2, 4]);
        LogSigmoid, "torch.nn.LogSigmoid", "ln sigmoid(x)", |i| layer(LogSigmoid, &[2, 4]);
        Softplus, "torch.nn.Softplus", "ln(1 + e^(beta·x))/beta", |i| layer(Softplus::default(), &[2, 4]);
        Softsign, "torch.nn.Softsign", "x/(1 + |x|)", |i| layer(Softsign, &[2, 4]);
        HardSigmoid, "torch.nn.Hardsigmoid", "min(max(x/6 + 1/2, 0), 1)", |i| layer(HardSigmoid, &[2, 4]);
        HardSwish, "torch.nn.Hardswish", "x·hard sigmoid(x)", |i| layer(HardSwish, &[2, 4]);
        Hardtanh, "torch.nn.Hardtanh", "x limited to [low, high]", |i| layer(Hardtanh::default(), &[2, 4]);
        Hardshrink, "torch.nn.Hardshrink", "x where |x| > lambda, else 0", |i| layer(Hardshrink::default(), &[2, 4]);
        Softshrink, "torch.nn.Softshrink", "x moved towards 0 by lambda", |i| layer(Softshrink::default(), &[2, 4]);
        Tanhshrink, "torch.nn.Tanhshrink", "x − tanh(x)", |i| layer(Tanhshrink, &[2, 4]);
        Threshold, "torch.nn.Threshold", "x where x > threshold, else value", |i| layer(Threshold::default(), &[2, 4]);
        Glu, "torch.nn.GLU", "a·sigmoid(b), of x's halves a and b", |i| layer(Glu::default(), &[2, 4]);
        SwiGlu, "", "silu(a)·b, of x's halves a and b", |i| layer(SwiGlu::default(), &[2, 4]);
        Softmax, "torch.nn.Softmax", "e^xᵢ/Σⱼ e^xⱼ", |i| layer(Softmax::default(), &[2, 4]);
        Softmax2d, "torch.nn.Softmax2d", "e^xᵢ/Σⱼ e^xⱼ over channels", |i| layer(Softmax2d, &[2, 4, 3, 3]);
        Softmin, "torch.nn.Softmin", "e^−xᵢ/Σⱼ e^−xⱼ", |i| layer(Softmin::default(), &[2, 4]);
        LogSoftmax, "torch.nn.LogSoftmax", "xᵢ − ln Σⱼ e^xⱼ", |i| layer(LogSoftmax::default(), &[2, 4]);
    }
}

fn dropouts() -> Vec<Row> {
    rows! {
        Dropout, "torch.nn.Dropout", "elements zeroed with probability p, the rest divided by 1 − p", |i| layer(Dropout::new(0.5), &[2, 4]);
        ChannelDropout, "torch.nn.Dropout2d", "channels zeroed", |i| layer(ChannelDropout::new(0.5), &[2, 4, 3]);
        Dropout1d, "torch.nn.Dropout1d", "channels zeroed", |i| layer(Dropout1d::new(0.5), &[2, 4, 3]);
        Dropout2d, "torch.nn.Dropout2d", "channels zeroed", |i| layer(Dropout2d::new(0.5), &[2, 4, 3, 3]);
        Dropout3d, "torch.nn.Dropout3d", "channels zeroed", |i| layer(Dropout3d::new(0.5), &[2, 4, 3, 3, 3]);
        AlphaDropout, "torch.nn.AlphaDropout", "a·(x·m − λα·(1 − m)) + b: mean 0 and variance 1 stay", |i| layer(AlphaDropout::new(0.5), &[2, 4]);
        FeatureAlphaDropout, "torch.nn.FeatureAlphaDropout", "the same by channel", |i| layer(FeatureAlphaDropout::new(0.5), &[2, 4, 3]);
        DropPath, "", "whole elements of the batch zeroed: a residual left out", |i| layer(DropPath::new(0.5), &[2, 4]);
        DropBlock, "", "blocks of places zeroed", |i| layer(DropBlock::new(0.5, 3), &[2, 4, 6, 6]);
        GaussianNoise, "", "x + σ·noise", |i| layer(GaussianNoise::new(0.5), &[2, 4]);
    }
}

fn adapters() -> Vec<Row> {
    rows! {
        LoraLinear, "", "x·Wᵀ + b + scale·x·Aᵀ·Bᵀ, A and B trained", |i| layer(LoraLinear::new(Linear::new(4, 3, i), LoraOptions::new(2), i), &[2, 4]);
        LoraEmbedding, "", "row i of W + scale·(B·A)ᵀ, A and B trained", |i| indexed(LoraEmbedding::new(Embedding::new(10, 4, i), LoraOptions::new(2), i), &[2, 3]);
        LoraAttention, "", "attention with adapters beside its projections", |i| {
            let base = MultiheadAttention::new(8, 2, i);
            let (x, seen) = (ones(&[2, 5, 8]), AttentionOptions::default());
            let l = LoraAttention::new(base, LoraTargets::default(), LoraOptions::new(2), i);
            shown(l, &[&x], |l, cx| Ok(vec![l.attend(&x, &x, &x, &seen, cx)]))
        };
    }
}

/// Class indices, for the losses.
pub(super) fn classes(n: usize) -> gradus_core::Tensor {
    indices(&[n])
}
