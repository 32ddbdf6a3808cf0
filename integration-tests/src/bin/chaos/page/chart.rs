//! Charts over the time of a run, as SVG: lines, bands where faults lasted, and who led.

use std::fmt::Write;
use std::time::Duration;

use super::Band;
use crate::leaders::Reign;

/// All charts are as wide, so that their times stand above each other.
const WIDTH: f64 = 1_000.0;
const LEFT: f64 = 74.0;
/// Room for half of the last time.
const RIGHT: f64 = 14.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 20.0;
const HEIGHT: f64 = 190.0;
const ROW: f64 = 22.0;
/// Colours of brokers, for eyes that see few of them too; more brokers begin again.
pub const COLOURS: [&str; 9] = [
    "#4477aa", "#ee9944", "#228833", "#aa3377", "#66bbcc", "#999933", "#bb5566", "#775511",
    "#8888cc",
];

/// Where times stand.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    pub seconds: f64,
}

impl Axis {
    fn x(self, at: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (at / self.seconds.max(1.0)).min(1.0)
    }

    /// A time every so many seconds, about ten of them.
    fn ticks(self) -> Vec<f64> {
        let step = [1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1_800.0, 3_600.0, 10_800.0]
            .into_iter()
            .find(|step| self.seconds / step <= 12.0)
            .unwrap_or(21_600.0);
        (0..).map(|tick| f64::from(tick) * step).take_while(|at| *at <= self.seconds).collect()
    }
}

/// How values stand above each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    FromZero,
    Logarithmic,
}

/// One line: its class, and at which second it has which value; where it has none, it is broken.
pub struct Line {
    pub class: &'static str,
    pub points: Vec<(f64, Option<f64>)>,
}

/// Lines over time.
pub fn lines(axis: Axis, bands: &[Band], scale: Scale, unit: &str, lines: &[Line]) -> String {
    let values =
        || lines.iter().flat_map(|line| line.points.iter().filter_map(|(_, value)| *value));
    let high = values().fold(1.0_f64, f64::max);
    let low = values().fold(high, f64::min).max(0.001);
    let ticks = match scale {
        Scale::FromZero => round_steps(high),
        Scale::Logarithmic => powers_of_ten(low, high),
    };
    let (floor, roof) = match scale {
        Scale::FromZero => (0.0, high * 1.05),
        Scale::Logarithmic => (low.log10().floor(), high.log10() + 0.1),
    };
    let y = |value: f64| {
        let value = match scale {
            Scale::FromZero => value,
            Scale::Logarithmic => value.max(0.001).log10(),
        };
        TOP + HEIGHT * (1.0 - (value - floor) / (roof - floor))
    };
    let mut svg = begin(TOP + HEIGHT + BOTTOM, unit);
    draw_bands(&mut svg, axis, bands, TOP + HEIGHT);
    for tick in ticks {
        let at = y(tick);
        let words = match unit {
            "ms" if tick >= 1_000.0 => format!("{} s", number(tick / 1_000.0)),
            _ => format!("{} {unit}", number(tick)),
        };
        put(
            &mut svg,
            format_args!(
                "<line class=\"rule\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{words}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                at + 4.0
            ),
        );
    }
    draw_times(&mut svg, axis, TOP + HEIGHT + 15.0);
    for line in lines {
        let mut path = String::new();
        let mut goes_on = false;
        for (at, value) in &line.points {
            if let Some(value) = value {
                let verb = if goes_on { 'L' } else { 'M' };
                put(&mut path, format_args!("{verb}{:.1} {:.1}", axis.x(*at), y(*value)));
            }
            goes_on = value.is_some();
        }
        put(&mut svg, format_args!("<path class=\"line {}\" d=\"{path}\"/>", line.class));
    }
    svg + "</svg>\n"
}

/// A row for each queue, in the colours of its leaders.
pub fn rows(axis: Axis, bands: &[Band], queues: &[String], reigns: &[Reign]) -> String {
    let height = TOP + ROW * queues.len() as f64;
    let mut svg = begin(height + BOTTOM, "who led");
    draw_bands(&mut svg, axis, bands, height);
    for (row, queue) in queues.iter().enumerate() {
        let top = TOP + ROW * row as f64;
        let name = queue.strip_prefix("chaos-").unwrap_or(queue);
        put(
            &mut svg,
            format_args!(
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                top + 14.0,
                escaped(name)
            ),
        );
        let mut of_queue = reigns.iter().filter(|reign| reign.queue == row).peekable();
        while let Some(reign) = of_queue.next() {
            let Some(leader) = reign.leader else { continue };
            let from = reign.from.as_secs_f64();
            let to = of_queue.peek().map_or(axis.seconds, |next| next.from.as_secs_f64());
            put(
                &mut svg,
                format_args!(
                    "<rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"><title>{} led by broker {leader} from {from:.1} s to {to:.1} s</title></rect>",
                    axis.x(from),
                    axis.x(to) - axis.x(from),
                    ROW - 5.0,
                    colour(leader),
                    escaped(name)
                ),
            );
        }
    }
    draw_times(&mut svg, axis, height + 15.0);
    svg + "</svg>\n"
}

/// The colour of a broker.
pub fn colour(broker: u32) -> &'static str {
    COLOURS[(broker as usize + COLOURS.len() - 1) % COLOURS.len()]
}

/// Text in HTML and SVG.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn begin(height: f64, label: &str) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">", escaped(label))
}

fn draw_bands(svg: &mut String, axis: Axis, bands: &[Band], bottom: f64) {
    for (number, band) in bands.iter().enumerate() {
        let (from, to) = (axis.x(seconds(band.from)), axis.x(seconds(band.to)));
        put(
            svg,
            format_args!(
                "<rect class=\"band\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}. {}, {:.1} s to {:.1} s</title></rect><line class=\"edge\" x1=\"{from:.1}\" x2=\"{from:.1}\" y1=\"{TOP}\" y2=\"{bottom:.1}\"/>",
                (to - from).max(1.0),
                bottom - TOP,
                number + 1,
                escaped(&band.words),
                seconds(band.from),
                seconds(band.to)
            ),
        );
        // More could not be read.
        if bands.len() <= 40 {
            put(
                svg,
                format_args!(
                    "<text x=\"{:.1}\" y=\"{}\">{}</text>",
                    from + 2.0,
                    TOP - 3.0,
                    number + 1
                ),
            );
        }
    }
}

fn draw_times(svg: &mut String, axis: Axis, y: f64) {
    for at in axis.ticks() {
        let words = if at < 120.0 { format!("{at:.0} s") } else { format!("{:.0} min", at / 60.0) };
        put(
            svg,
            format_args!(
                "<text x=\"{:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{words}</text>",
                axis.x(at)
            ),
        );
    }
}

fn round_steps(high: f64) -> Vec<f64> {
    let rough = high / 4.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|of| of * power).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(high);
    (0..=4).map(|tick| f64::from(tick) * step).take_while(|value| *value <= high * 1.05).collect()
}

fn powers_of_ten(low: f64, high: f64) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().floor() as i32);
    (first..=last).map(|power| 10_f64.powi(power)).collect()
}

fn number(value: f64) -> String {
    if value >= 10_000.0 {
        format!("{:.0} k", value / 1_000.0)
    } else if value >= 1.0 || value == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value}")
    }
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a string takes everything");
}
