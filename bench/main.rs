//! The comparison: the release binary and its peers in turn on the same servers, every delivered byte checked, medians and
//! ratios in one table.
//!
//! `bench [--quick] [--pairs N] [--only CLIENT,…] [--out FOLDER] --connector PATH --upload-floor PATH [WORKLOAD …]`. A failure
//! or a wrong byte of the program fails it. A peer's is told, and leaves the peer without figures; to be slow is none.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};

#[path = "../tests/harness/mod.rs"]
mod harness;

mod contestant;
mod data;
mod far;
mod folder;
mod group;
mod measure;
mod plot;
mod server;
mod site;
mod store;
mod table;
mod workload;

use contestant::{Contestant, Job, Programs};
use data::Expected;
use group::Task;
use measure::{Cost, End};
use site::Site;
use table::{Ratio, Results, Runs};
use workload::Workload;

const PAIRS: usize = 5;
/// Where a pair of runs takes longer than this, there are fewer of them.
const LONG_PAIR_SECONDS: f64 = 120.0;
const LONG_PAIRS: usize = 3;
/// What is shown of what a client that failed has written.
const LAST_LINES: usize = 10;

struct Arguments {
    quick: bool,
    pairs: usize,
    /// Which clients run; all where empty.
    only: Vec<String>,
    out: PathBuf,
    programs: Programs,
    workloads: Vec<String>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [measure::MODE, order, cost] => return measure::main(order, cost),
        [far::MODE, port_file, server] => return far::main(port_file, server),
        [store::MODE, port_file, folder] => return store::main(port_file, folder),
        _ => {}
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match parse(arguments).and_then(|arguments| runtime.block_on(until_stopped(bench(&arguments)))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A bench that is stopped takes its files with it: in memory, they may be most of it.
async fn until_stopped(bench: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        ended = bench => ended,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}

fn parse(arguments: Vec<String>) -> anyhow::Result<Arguments> {
    let (mut quick, mut pairs, mut out, mut workloads) = (false, PAIRS, PathBuf::from("target/bench"), Vec::new());
    let (mut connector, mut upload_floor, mut only) = (None, None, Vec::new());
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} takes a value"));
        match argument.as_str() {
            "--quick" => quick = true,
            "--pairs" => pairs = value()?.parse::<NonZeroUsize>().context("--pairs")?.get(),
            "--only" => only.extend(value()?.split(',').map(str::to_owned)),
            "--out" => out = value()?.into(),
            "--connector" => connector = Some(PathBuf::from(value()?)),
            "--upload-floor" => upload_floor = Some(PathBuf::from(value()?)),
            flag if flag.starts_with('-') => bail!("no such flag: {flag}"),
            _ => workloads.push(argument),
        }
    }
    let path = |path: Option<PathBuf>, flag: &str| {
        let path = path.with_context(|| format!("{flag} is missing"))?;
        path.canonicalize().with_context(|| path.display().to_string())
    };
    let programs = Programs {
        connector: path(connector, "--connector")?,
        // Only the floor's rows need it.
        upload_floor: upload_floor.map_or(Ok(PathBuf::new()), |floor| path(Some(floor), "--upload-floor"))?,
    };
    Ok(Arguments { quick, pairs, only, out, programs, workloads })
}

async fn bench(arguments: &Arguments) -> anyhow::Result<()> {
    let mut workloads = if arguments.quick { workload::quick() } else { workload::all() };
    if !arguments.workloads.is_empty() {
        for wanted in &arguments.workloads {
            let is_known = workloads.iter().any(|workload| workload.name.starts_with(wanted.as_str()));
            anyhow::ensure!(is_known, "no workload's name begins with {wanted:?}");
        }
        workloads
            .retain(|workload| arguments.workloads.iter().any(|wanted| workload.name.starts_with(wanted.as_str())));
    }
    if !arguments.only.is_empty() {
        let runs = |only: &String| workloads.iter().flat_map(|w| &w.contestants).any(|c| only == c.id());
        if let Some(unknown) = arguments.only.iter().find(|only| !runs(only)) {
            bail!("no client of these workloads is called {unknown:?}");
        }
        for workload in &mut workloads {
            workload.contestants.retain(|contestant| arguments.only.iter().any(|only| only == contestant.id()));
        }
    }
    let has_floor = workloads.iter().any(|workload| workload.contestants.contains(&Contestant::Floor));
    anyhow::ensure!(!has_floor || arguments.programs.upload_floor.exists(), "--upload-floor is missing");
    let folder = folder::choose();
    tempfile::env::override_temp_dir(&folder)
        .map_err(|other| anyhow::anyhow!("the folder is {} already", other.display()))?;
    let site = Site::start().await;
    // Once, before hours of work.
    let machine = machine(&folder);
    if workloads.iter().any(|workload| workload.limited) {
        Task::new().map_err(anyhow::Error::msg)?;
    }
    fs::create_dir_all(&arguments.out)?;
    let mut results = Vec::new();
    let mut text = String::new();
    for workload in workloads {
        results.push(run(&site, workload, arguments).await?);
        // What is measured stays, whatever comes after it.
        let ratios: Vec<Ratio> = results.iter().flat_map(|result| result.ratios(&results)).collect();
        text = table::markdown(&results, &machine);
        fs::write(arguments.out.join("results.md"), &text)?;
        if !ratios.is_empty() {
            fs::write(arguments.out.join("ratios.svg"), plot::svg(&ratios))?;
        }
    }
    println!("\n{text}");
    Ok(())
}

async fn run(site: &Site, workload: Workload, arguments: &Arguments) -> anyhow::Result<Results> {
    eprintln!("{}: {}", workload.name, workload.what);
    let expected = workload.data.make(&site.sshd.root());
    // Else the kernel writes gigabytes to the disk while the first client is measured.
    let synced = Command::new("sync").status().context("sync")?;
    anyhow::ensure!(synced.success(), "sync: {synced}");
    let mut runs: BTreeMap<Contestant, Runs> = BTreeMap::new();
    let mut pairs = arguments.pairs;
    let mut round = 0;
    while round < pairs {
        let mut slowest_two = [0.0_f64; 2];
        // Each begins a round in its turn: what it costs to come first, or behind another, falls to all.
        let mut contestants = workload.contestants.clone();
        let first = round % contestants.len().max(1);
        contestants.rotate_left(first);
        for contestant in &contestants {
            let runs = runs.entry(*contestant).or_insert_with(|| Runs::Done(Vec::new()));
            let Runs::Done(costs) = runs else { continue };
            if round > 0 && contestant.runs_once() {
                continue;
            }
            let name = contestant.name();
            match deliver(site, &workload, *contestant, &expected, &arguments.programs).await? {
                Delivery::Done(cost) => {
                    let Cost { cpu_seconds, wall_seconds, peak_mib } = cost;
                    eprintln!("  {name:<34} {cpu_seconds:>7.2} CPU s {wall_seconds:>7.2} s {peak_mib:>5.0} MiB");
                    if !contestant.runs_once() {
                        slowest_two[0] = slowest_two[0].max(wall_seconds);
                        slowest_two.sort_by(f64::total_cmp);
                    }
                    costs.push(cost);
                }
                Delivery::OverLimit(limit) if contestant.is_ours() => {
                    bail!("{}: {name}: not done after {} s", workload.name, limit.as_secs())
                }
                Delivery::OverLimit(limit) => {
                    eprintln!("  {name:<34} killed after {} s", limit.as_secs());
                    *runs = Runs::OverLimit(limit);
                }
                Delivery::Failed(how) if contestant.is_ours() => bail!("{}: {name}: {how}", workload.name),
                Delivery::Failed(how) => {
                    eprintln!("  {name:<34} failed: {how}");
                    *runs = Runs::Failed;
                }
            }
        }
        if slowest_two.iter().sum::<f64>() > LONG_PAIR_SECONDS {
            pairs = pairs.min(LONG_PAIRS);
        }
        round += 1;
    }
    let folder = site.sshd.root().join(workload.data.name());
    fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(Results { workload, runs })
}

/// What became of one delivery.
enum Delivery {
    /// Every byte is there.
    Done(Cost),
    /// Says how, with the end of what the client wrote.
    Failed(String),
    OverLimit(Duration),
}

/// Fails where there is nothing to measure in.
async fn deliver(
    site: &Site,
    workload: &Workload,
    contestant: Contestant,
    expected: &Expected,
    programs: &Programs,
) -> anyhow::Result<Delivery> {
    let bucket = site.bucket().await;
    let task = if workload.limited { Some(Task::new().map_err(anyhow::Error::msg)?) } else { None };
    let job = Job {
        site,
        data: workload.data,
        bucket: &bucket,
        port: if workload.far { site.far_port } else { site.sshd.port() },
        groups: task.as_ref().map(Task::entrances).unwrap_or_default(),
    };
    let mut delivery = carry_out(&job, contestant, programs);
    if contestant.delivers()
        && matches!(delivery, Delivery::Done(_))
        && let Err(wrong) = site.verify(&bucket, expected).await
    {
        delivery = Delivery::Failed(wrong);
    }
    site.remove(&bucket).await;
    Ok(delivery)
}

/// Runs the commands of the job, up to the first that fails.
fn carry_out(job: &Job<'_>, contestant: Contestant, programs: &Programs) -> Delivery {
    let mut all = Cost::default();
    for order in job.orders(contestant, programs) {
        let (end, cost) = measure::measure(&order, job.site.folder.path());
        match end {
            End::Success => all = all.then(cost),
            End::OverLimit(limit) => return Delivery::OverLimit(limit),
            End::Failure(how) => {
                let log = fs::read(&order.log).unwrap_or_default();
                let log = String::from_utf8_lossy(&log);
                let lines: Vec<&str> = log.lines().collect();
                let last = lines[lines.len().saturating_sub(LAST_LINES)..].iter();
                return Delivery::Failed(last.fold(how, |told, line| format!("{told}\n    {line}")));
            }
        }
    }
    Delivery::Done(all)
}

/// What the figures were measured on, and with.
fn machine(folder: &Path) -> String {
    let first_line = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        let output = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        String::from_utf8_lossy(&output).lines().next().unwrap_or_default().trim().to_owned()
    };
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let rclone = harness::process::installed("rclone").display().to_string();
    format!(
        "{}, commit {}; {cores} × {}; Linux {}; {}; {}; files in {}.",
        chrono::Utc::now().format("%Y-%m-%d %H:%M UTC"),
        first_line("git", &["rev-parse", "--short", "HEAD"]),
        cpu.trim_start_matches([' ', '\t', ':']),
        first_line("uname", &["-r"]),
        first_line("ssh", &["-V"]),
        first_line(&rclone, &["version"]),
        folder.display(),
    )
}
