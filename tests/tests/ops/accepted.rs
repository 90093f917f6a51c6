//! Calls that PyTorch rejects and Gradus accepts, by design, each with its reason.

/// The op (or the end of its name), how PyTorch's complaint begins, and why it has a result here.
const REASONS: [(&str, &str, &str); 13] = [
    ("atan2", "", NUMBER),
    ("hypot", "", NUMBER),
    ("logaddexp", "", NUMBER),
    ("maximum", "", NUMBER),
    ("minimum", "", NUMBER),
    ("max.binary", "", NUMBER),
    ("min.binary", "", NUMBER),
    (
        "masked_fill",
        "only supports a 0-dimensional value",
        "a value that is a tensor broadcasts, as every operand does",
    ),
    ("scatter", "Expected self.dtype", SOURCE),
    ("scatter_add", "Expected self.dtype", SOURCE),
    ("nn.functional.group_norm", "Expected", EMPTY),
    ("nn.functional.max_pool", "Expected", EMPTY),
    ("nn.functional.rms_norm", "Expected normalized_shape", "over no dimensions each element is normalized by itself"),
];

const NUMBER: &str = "a number stands for a tensor of its value, as with every operator";
const SOURCE: &str = "the source takes the dtype of what it is put into, as with every assignment";
const EMPTY: &str = "a tensor without elements has a result without elements";

/// The reason, if there is one.
pub fn by_design(name: &str, complaint: &str) -> Option<&'static str> {
    let fits = |of: &str| name == of || of == "nn.functional.max_pool" && name.starts_with(of);
    REASONS.iter().find(|(of, begins, _)| fits(of) && complaint.starts_with(begins)).map(|(_, _, reason)| *reason)
}
