//! Progress bars on long work, on standard error, when that is a terminal.

use std::fmt::Write;

use indicatif::{
    HumanCount, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
};

/// Redraws a second: enough for the eye, and no load.
const REDRAWS_PER_SECOND: u8 = 10;

/// Where bars are drawn: nowhere when standard error is no terminal.
pub fn board() -> MultiProgress {
    // The target hides itself unless it is a terminal.
    MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_SECOND))
}

/// A bar up to `length`, or a running count when nobody knows how many will come.
pub fn bar(board: &MultiProgress, what: &'static str, length: Option<u64>) -> ProgressBar {
    let (bar, template) = match length {
        Some(length) => {
            (ProgressBar::new(length), "{prefix:>10} {wide_bar} {human_pos}/{human_len} {rate:>14}")
        }
        None => (ProgressBar::no_length(), "{prefix:>10} {human_pos} {rate}"),
    };
    let style = ProgressStyle::with_template(template)
        .expect("the template is well-formed")
        .with_key("rate", rate);
    board.add(bar.with_style(style).with_prefix(what))
}

/// Whole messages a second.
fn rate(state: &ProgressState, out: &mut dyn Write) {
    // A bar that cannot show its rate shows none.
    let _shown = write!(out, "{}/s", HumanCount(state.per_sec().round() as u64));
}
