//! Runs into medians, medians into ratios, and both into Markdown.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::contestant::Contestant;
use crate::measure::Cost;
use crate::workload::{Against, Bound, Figure, Workload};

/// One workload's runs, by who ran.
pub struct Results {
    pub workload: Workload,
    pub runs: BTreeMap<Contestant, Runs>,
}

/// What became of a contestant's runs.
pub enum Runs {
    Done(Vec<Cost>),
    /// One of them failed: nothing is to be said of the others.
    Failed,
    /// Killed after this time.
    OverLimit(Duration),
}

/// A bound and what it came to.
pub struct Ratio {
    pub workload: &'static str,
    pub bound: Bound,
    pub value: f64,
}

impl Ratio {
    pub fn holds(&self) -> bool {
        self.value <= self.bound.most
    }

    pub fn label(&self) -> String {
        let figure = match (self.bound.figure, self.bound.against) {
            (Figure::Cpu, Against::Fixed) => "CPU s",
            (Figure::Wall, Against::Fixed) => "wall s",
            (Figure::Peak, Against::Fixed) => "peak MiB",
            (Figure::Cpu, _) => "CPU",
            (Figure::Wall, _) => "wall",
            (Figure::Peak, _) => "peak memory",
        };
        let against = match self.bound.against {
            Against::Rclone => "rclone, the better of two",
            Against::RcloneAsItComes => "rclone",
            Against::Floor => "floor",
            Against::Other(name, times) => {
                return format!("{}, {figure} over {times} × {name}'s", self.bound.ours.name());
            }
            Against::Fixed => "",
        };
        let ours = self.bound.ours.name();
        if against.is_empty() { format!("{ours}, {figure}") } else { format!("{ours}, {figure} over {against}") }
    }
}

impl Results {
    fn median(&self, contestant: Contestant, figure: Figure) -> Option<f64> {
        let Runs::Done(costs) = self.runs.get(&contestant)? else { return None };
        let mut values: Vec<f64> = costs.iter().map(|cost| of(cost, figure)).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        match values.len() {
            0 => None,
            odd if odd % 2 == 1 => Some(values[middle]),
            _ => Some(f64::midpoint(values[middle - 1], values[middle])),
        }
    }

    /// Of every bound whose both sides were measured; `all` are the results of every workload.
    pub fn ratios(&self, all: &[Results]) -> Vec<Ratio> {
        let value = |bound: &Bound| {
            let ours = self.median(bound.ours, bound.figure)?;
            let median = |contestant| self.median(contestant, bound.figure);
            let theirs = match bound.against {
                Against::Rclone => {
                    let both = [Contestant::Rclone, Contestant::RcloneTuned].map(median);
                    both.into_iter().flatten().reduce(f64::min)?
                }
                Against::RcloneAsItComes => median(Contestant::Rclone)?,
                Against::Floor => median(Contestant::Floor)?,
                Against::Other(name, times) => {
                    let other = all.iter().find(|other| other.workload.name == name)?;
                    other.median(bound.ours, bound.figure)? * times
                }
                Against::Fixed => 1.0,
            };
            Some(ours / theirs)
        };
        let ratio = |bound: &Bound| Some(Ratio { workload: self.workload.name, bound: *bound, value: value(bound)? });
        self.workload.bounds.iter().filter_map(ratio).collect()
    }

    /// A row for each contestant.
    pub fn rows(&self) -> String {
        let mut rows = String::new();
        for (contestant, runs) in &self.runs {
            let figures = match runs {
                Runs::Done(costs) => {
                    let median = |figure| self.median(*contestant, figure).unwrap_or(f64::NAN);
                    let [cpu, wall, peak] = [Figure::Cpu, Figure::Wall, Figure::Peak].map(median);
                    format!("{cpu:.2} | {wall:.2} | {peak:.0} | {}", costs.len())
                }
                Runs::Failed => "failed | – | – | –".to_owned(),
                Runs::OverLimit(limit) => format!("– | over {} | – | 1", limit.as_secs()),
            };
            let _ = writeln!(rows, "| {} | {} | {figures} |", self.workload.name, contestant.name());
        }
        rows
    }
}

fn of(cost: &Cost, figure: Figure) -> f64 {
    match figure {
        Figure::Cpu => cost.cpu_seconds,
        Figure::Wall => cost.wall_seconds,
        Figure::Peak => cost.peak_mib,
    }
}

/// All of it as Markdown.
pub fn markdown(results: &[Results], machine: &str) -> String {
    let mut text = format!("{machine}\n\n");
    for result in results {
        let _ = writeln!(text, "- {}: {}", result.workload.name, result.workload.what);
    }
    text += "\n| | client | CPU s | wall s | peak MiB | runs |\n|---|---|--:|--:|--:|--:|\n";
    for result in results {
        text += &result.rows();
    }
    let ratios: Vec<Ratio> = results.iter().flat_map(|result| result.ratios(results)).collect();
    if !ratios.is_empty() {
        text += "\n| | ratio of medians | measured | at most | |\n|---|---|--:|--:|---|\n";
    }
    for ratio in &ratios {
        let verdict = if ratio.holds() { "holds" } else { "**missed**" };
        let _ = writeln!(
            text,
            "| {} | {} | {:.2} | {:.2} | {verdict} |",
            ratio.workload,
            ratio.label(),
            ratio.value,
            ratio.bound.most
        );
    }
    text
}
