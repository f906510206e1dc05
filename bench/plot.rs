//! The ratios to rclone as an SVG of bars: shorter is better, the line at 1 is rclone.

use std::fmt::Write as _;

use crate::contestant::Contestant;
use crate::table::Ratio;
use crate::workload::{Against, Figure};

const ROW: usize = 22;
const LABEL: usize = 170;
const WIDTH: usize = 420;
const TOP: usize = 48;

/// Draws the ratios of the program as it comes, over the better of rclone's two.
pub fn svg(ratios: &[Ratio]) -> String {
    let shown = |ratio: &&Ratio| ratio.bound.ours == Contestant::Russh && ratio.bound.against == Against::Rclone;
    let ratios: Vec<&Ratio> = ratios.iter().filter(shown).collect();
    let height = TOP + ROW * ratios.len() + 16;
    let total = LABEL + WIDTH + 60;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{total}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"8\" y=\"18\" \
         font-weight=\"bold\">sftp-s3-connector over rclone (the better of two settings); less is better</text>\n"
    );
    for (row, ratio) in ratios.iter().enumerate() {
        let y = TOP + row * ROW;
        let (figure, colour) = match ratio.bound.figure {
            Figure::Cpu => ("CPU", "#c0392b"),
            Figure::Wall => ("wall time", "#2980b9"),
            Figure::Peak => ("peak memory", "#27ae60"),
        };
        let bar = (ratio.value.min(1.1) * WIDTH as f64) as usize;
        let text = y + 13;
        let _ = writeln!(
            svg,
            "<text x=\"8\" y=\"{text}\">{} {figure}</text>\n<rect x=\"{LABEL}\" y=\"{y}\" width=\"{bar}\" height=\"16\" \
             fill=\"{colour}\"/>\n<text x=\"{}\" y=\"{text}\">{:.2}</text>",
            ratio.workload,
            LABEL + bar + 6,
            ratio.value
        );
    }
    let (line, bottom) = (LABEL + WIDTH, height - 12);
    let _ = writeln!(
        svg,
        "<line x1=\"{line}\" y1=\"{}\" x2=\"{line}\" y2=\"{bottom}\" stroke=\"#333\" stroke-dasharray=\"4\"/>\n\
         <text x=\"{}\" y=\"{}\">rclone</text>\n</svg>",
        TOP - 8,
        line - 18,
        TOP - 12
    );
    svg
}
