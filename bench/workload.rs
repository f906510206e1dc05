//! What is compared, and what it is to come to.

use crate::contestant::Contestant::{self, Floor, Libssh2, OneConnection, Rclone, RcloneTuned, Russh, Sample};
use crate::data::{Data, GIB, KIB, MIB};

/// Which figure of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    Cpu,
    Wall,
    Peak,
}

/// What a figure is held against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Against {
    /// The better of rclone's two.
    Rclone,
    /// rclone as it comes.
    RcloneAsItComes,
    Floor,
    /// So many times what the program took for another workload, by its name.
    Other(&'static str, f64),
    /// A fixed number of the figure's unit: seconds, MiB.
    Fixed,
}

/// `figure` of `ours` is at most `most` times what it is held against.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    pub ours: Contestant,
    pub figure: Figure,
    pub against: Against,
    pub most: f64,
}

#[derive(Debug, Clone)]
pub struct Workload {
    pub name: &'static str,
    pub what: &'static str,
    pub data: Data,
    pub contestants: Vec<Contestant>,
    /// Fifty milliseconds of round trip to the server.
    pub far: bool,
    /// In a task of a quarter of a processor and 512 MiB.
    pub limited: bool,
    pub bounds: Vec<Bound>,
}

fn bound(ours: Contestant, figure: Figure, against: Against, most: f64) -> Bound {
    Bound { ours, figure, against, most }
}

/// The three bounds against rclone that most workloads have.
fn against_rclone(ours: Contestant, [cpu, wall, peak]: [f64; 3]) -> Vec<Bound> {
    let figures = [(Figure::Cpu, cpu), (Figure::Wall, wall), (Figure::Peak, peak)];
    figures.map(|(figure, most)| bound(ours, figure, Against::Rclone, most)).into()
}

fn workload(name: &'static str, what: &'static str, data: Data, contestants: &[Contestant]) -> Workload {
    let contestants = contestants.to_vec();
    Workload { name, what, data, contestants, far: false, limited: false, bounds: Vec::new() }
}

/// All of it.
pub fn all() -> Vec<Workload> {
    use Against::{Fixed, Other, RcloneAsItComes};
    let both = [Russh, Libssh2, Rclone, RcloneTuned];
    let one = Data::One(GIB);
    let many = Data::Many(10_000, 10 * KIB);
    let mut workloads = vec![
        Workload {
            bounds: [
                against_rclone(Russh, [0.33, 0.70, 0.40]),
                against_rclone(Libssh2, [0.60, 0.70, 0.40]),
                vec![bound(Russh, Figure::Cpu, Against::Floor, 1.25)],
            ]
            .concat(),
            ..workload("W1", "one file of 1 GiB", one, &[Russh, Libssh2, Rclone, RcloneTuned, Floor, Sample])
        },
        Workload {
            bounds: [against_rclone(Russh, [0.30, 0.33, 0.60]), against_rclone(Libssh2, [0.75, 0.33, 0.60])].concat(),
            ..workload("W2", "10,000 files of 10 KiB", many, &[Russh, Libssh2, Rclone, RcloneTuned, Sample])
        },
        Workload {
            bounds: against_rclone(Russh, [0.33, 0.60, 0.40]),
            ..workload("W3", "1,000 files of 1 KiB to 32 MiB in a tree", Data::Tree(1000, KIB, 32 * MIB), &both)
        },
        Workload {
            bounds: [against_rclone(Russh, [0.40, 0.60, 0.40]), vec![bound(Russh, Figure::Cpu, Against::Floor, 1.30)]]
                .concat(),
            ..workload(
                "W4",
                "a zip of 1 GiB, 200 entries, unpacked",
                Data::Zip(GIB, 200),
                &[Russh, Rclone, RcloneTuned, Floor],
            )
        },
        Workload {
            far: true,
            bounds: vec![bound(Russh, Figure::Wall, Against::Rclone, 0.60)],
            ..workload("W5a", "one file of 1 GiB, 50 ms away", one, &[Russh, Rclone, RcloneTuned])
        },
        Workload {
            far: true,
            bounds: vec![
                bound(Russh, Figure::Wall, Against::Rclone, 0.15),
                bound(OneConnection, Figure::Wall, RcloneAsItComes, 0.25),
            ],
            ..workload(
                "W5b",
                "1,000 files of 10 KiB, 50 ms away",
                Data::Many(1000, 10 * KIB),
                &[Russh, OneConnection, Rclone, RcloneTuned],
            )
        },
        Workload {
            limited: true,
            bounds: vec![bound(Russh, Figure::Wall, Against::Rclone, 0.40), bound(Russh, Figure::Peak, Fixed, 256.0)],
            ..workload("W6a", "one file of 1 GiB in a task of 0.25 vCPU, 512 MiB", one, &[Russh, Rclone, RcloneTuned])
        },
        Workload {
            limited: true,
            bounds: vec![bound(Russh, Figure::Wall, Against::Rclone, 0.40), bound(Russh, Figure::Peak, Fixed, 256.0)],
            ..workload("W6b", "10,000 files of 10 KiB in such a task", many, &[Russh, Rclone, RcloneTuned])
        },
        Workload {
            bounds: vec![
                bound(Russh, Figure::Cpu, Other("W1", 8.0), 1.10),
                bound(Russh, Figure::Peak, Other("W1", 1.0), 1.10),
            ],
            ..workload("W7a", "one file of 8 GiB", Data::One(8 * GIB), &[Russh])
        },
        Workload {
            bounds: vec![bound(Russh, Figure::Cpu, Other("W2", 10.0), 1.10), bound(Russh, Figure::Peak, Fixed, 96.0)],
            ..workload("W7b", "100,000 files of 10 KiB", Data::Many(100_000, 10 * KIB), &[Russh])
        },
        Workload {
            bounds: vec![bound(Russh, Figure::Cpu, Fixed, 0.15)],
            ..workload("W8a", "from start to the first byte: a file of 1 byte", Data::One(1), &[Russh, Rclone])
        },
    ];
    workloads.push(Workload {
        bounds: vec![bound(Russh, Figure::Cpu, Fixed, 0.10), bound(Russh, Figure::Peak, Fixed, 32.0)],
        ..workload("W8b", "nothing to do", Data::Empty, &[Russh, Rclone])
    });
    workloads
}

/// For use while working, and as a smoke test: no bounds.
pub fn quick() -> Vec<Workload> {
    let contestants = [Russh, Libssh2, Rclone];
    vec![
        workload("W1", "one file of 256 MiB", Data::One(256 * MIB), &contestants),
        workload("W2", "2,000 files of 10 KiB", Data::Many(2000, 10 * KIB), &contestants),
    ]
}
