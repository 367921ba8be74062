//! Runs that are killed, stopped, out of disk or out of memory, and what is there afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[cfg(feature = "model")]
use crate::support::fixture;
use crate::support::{Run, Workspace, tiny_llama};
use compress_model::Error;
use compress_model::checkpoint::Checkpoint;
use compress_model::pipeline::{Plan, Progress, compress_resumable};
use compress_model::recipe::Preset;
use serde_json::Value;

/// Kills of each test, unless the environment says how many.
const KILLS: usize = 8;

fn kills() -> usize {
    std::env::var("COMPRESS_MODEL_KILLS").map_or(KILLS, |text| text.parse().unwrap())
}

/// Arguments of a run that takes a while and has adapters.
fn server() -> Vec<String> {
    ["-o", "out", "--preset", "server", "-t", "2"].map(str::to_owned).to_vec()
}

/// Arguments of a run with a solver.
#[cfg(feature = "model")]
fn calibrated() -> Vec<String> {
    let text = fixture("calib_cc0.txt");
    let args = ["-o", "out", "--preset", "on-device", "-t", "2", "--calibration", &text];
    let few = ["--calibration-windows", "4", "--calibration-ctx", "64"];
    args.iter().chain(&few).map(|arg| (*arg).to_owned()).collect()
}

fn spawn(workspace: &Workspace, args: &[String], more: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_compress-model"))
        .env_clear()
        .current_dir(workspace.path(""))
        .args(["compress", "model"])
        .args(args)
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn run(workspace: &Workspace, args: &[String], more: &[&str]) -> Run {
    let args: Vec<&str> = args.iter().map(String::as_str).chain(more.iter().copied()).collect();
    workspace.run("compress", "model", &args)
}

/// Every file under `folder`, at any depth.
fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read(path).unwrap());
            }
        }
    }
    files
}

/// Numbers in [0, 1) that look random.
fn uniform(state: &mut u64) -> f64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 11) as f64 / (1u64 << 53) as f64
}

/// Kills runs at random moments, each going on where the last was killed or, every third time, from
/// the start; then lets one finish. Everything must be as if nothing had happened.
fn killed(args: &[String], kills: usize) {
    let workspace = Workspace::with_tiny_llama(3);
    let start = Instant::now();
    run(&workspace, args, &[]).ok();
    let whole = start.elapsed();
    let expected = tree(&workspace.path("out"));
    fs::remove_dir_all(workspace.path("out")).unwrap();

    let (mut state, mut died, mut resumed) = (0x5eed, 0, 0);
    while died < kills {
        let mut child = spawn(&workspace, args, &["--resume"]);
        std::thread::sleep(whole.mul_f64(uniform(&mut state)));
        child.kill().unwrap();
        if child.wait().unwrap().code().is_none() {
            died += 1;
            // It may have died with its output in place; half of one there must never be.
            let out = workspace.path("out");
            assert!(!out.exists() || tree(&out) == expected, "half an output folder");
        }
        if workspace.path("out").exists() || died % 3 == 0 {
            let report = run(&workspace, args, &["--resume", "--overwrite", "--json"]).ok().json();
            let solved = &report["solved"]["resumed_tensors"];
            resumed += report["resumed_tensors"].as_u64().unwrap() + solved.as_u64().unwrap_or(0);
            assert!(tree(&workspace.path("out")) == expected, "after {died} kills");
            assert_eq!(workspace.names(), ["model", "out"], "work in progress is left");
            fs::remove_dir_all(workspace.path("out")).unwrap();
        }
    }
    run(&workspace, args, &["--resume"]).ok();
    assert!(tree(&workspace.path("out")) == expected);
    println!("{died} kills survived, {resumed} tensors not done again");
}

#[test]
fn a_killed_run_goes_on_and_gives_the_same_bytes() {
    killed(&server(), kills());
}

#[test]
#[cfg(feature = "model")]
fn a_killed_calibrated_run_goes_on_and_gives_the_same_bytes() {
    killed(&calibrated(), kills().div_ceil(3));
}

/// Sends SIGTERM once the journal has a line, and gives the exit code and what was said.
fn terminated(workspace: &Workspace, args: &[String]) -> (Option<i32>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_compress-model"))
        .env_clear()
        .current_dir(workspace.path(""))
        .args(["compress", "model"])
        .args(args)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let journal = workspace.path(".out.partial").join("journal.jsonl");
    let begun = || fs::metadata(&journal).is_ok_and(|journal| journal.len() > 0);
    while !begun() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(2));
    }
    let pid = child.id().to_string();
    Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn sigterm_stores_the_run_and_what_changed_since_is_named() {
    let workspace = Workspace::with_tiny_llama(1);
    let (code, said) = terminated(&workspace, &server());
    assert_eq!(code, Some(75), "{said}");
    assert!(said.contains("--resume") && said.contains(".out.partial"), "{said}");
    assert_eq!(workspace.names(), [".out.partial", "model"]);
    let journal = fs::read(workspace.path(".out.partial").join("journal.jsonl")).unwrap();
    let noted = journal.iter().filter(|&&byte| byte == b'\n').count() as u64;

    run(&workspace, &server(), &[]).fails(2, &[".out.partial", "--resume"]);
    run(&workspace, &server(), &["--resume", "--seed", "1"]).fails(2, &["the seed changed"]);
    let other = ["--resume", "--ignore", "layers.0.*q_proj"];
    run(&workspace, &server(), &other).fails(2, &["the recipe changed"]);
    let weights = workspace.path("model").join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    let mut changed = bytes.clone();
    let last = changed.len() - 3;
    changed[last] ^= 1;
    fs::write(&weights, changed).unwrap();
    run(&workspace, &server(), &["--resume"]).fails(2, &["the checkpoint changed"]);
    fs::write(&weights, bytes).unwrap();
    let depends = workspace.path(".out.partial").join("depends.json");
    let text = fs::read_to_string(&depends).unwrap();
    fs::write(&depends, text.replace("compress-model 0", "compress-model 9")).unwrap();
    run(&workspace, &server(), &["--resume"]).fails(2, &["the program changed"]);
    fs::write(&depends, text).unwrap();

    let report = run(&workspace, &server(), &["--resume", "--json"]).ok().json();
    assert_eq!(report["resumed_tensors"], noted, "every tensor of the journal is kept");
    let resumed = tree(&workspace.path("out"));
    run(&workspace, &server(), &["--overwrite"]).ok();
    assert!(resumed == tree(&workspace.path("out")));
}

/// What a loss of power may leave: of everything that was not flushed when the journal was last
/// written, nothing. All bytes of tensors that the journal does not speak of are overwritten.
#[test]
fn what_was_not_flushed_is_not_needed() {
    let workspace = Workspace::with_tiny_llama(1);
    run(&workspace, &server(), &[]).ok();
    let expected = tree(&workspace.path("out"));
    fs::remove_dir_all(workspace.path("out")).unwrap();
    let (code, said) = terminated(&workspace, &server());
    assert_eq!(code, Some(75), "{said}");
    let partial = workspace.path(".out.partial");
    let journal = fs::read_to_string(partial.join("journal.jsonl")).unwrap();
    let noted: Vec<Value> =
        journal.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let parts = |line: &Value| -> Vec<String> {
        let parts = line["parts"].as_array().unwrap().iter();
        let mut names: Vec<String> =
            parts.map(|part| part["name"].as_str().unwrap().to_owned()).collect();
        let module = line["adapter"]["module"].as_str().unwrap_or("none");
        names.extend(["A", "B"].map(|f| format!("base_model.model.{module}.lora_{f}.weight")));
        names
    };
    let kept: Vec<String> = noted.iter().flat_map(parts).collect();
    let mut lost = 0;
    for file in ["model.safetensors", "adapter_model.safetensors"] {
        let path = partial.join("output").join(file);
        let mut bytes = fs::read(&path).unwrap();
        let header_len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&bytes[8..8 + header_len]).unwrap();
        for (name, tensor) in header.as_object().unwrap() {
            if name == "__metadata__" || kept.contains(name) {
                continue;
            }
            let place = |i: usize| tensor["data_offsets"][i].as_u64().unwrap() as usize;
            bytes[8 + header_len..][place(0)..place(1)].fill(0xa5);
            lost += 1;
        }
        // The header itself is written again too.
        bytes[..8 + header_len].fill(0);
        fs::write(path, bytes).unwrap();
    }
    assert!(lost > 0 && !kept.is_empty());
    // The line that was being written.
    let torn = format!("{journal}{{\"tensor\":\"mod");
    fs::write(partial.join("journal.jsonl"), torn).unwrap();
    run(&workspace, &server(), &["--resume"]).ok();
    assert!(tree(&workspace.path("out")) == expected);
}

/// The other half of it: everything that the journal speaks of was flushed before.
#[test]
fn the_journal_is_written_after_what_it_speaks_of_was_flushed() {
    let workspace = Workspace::with_tiny_llama(1);
    let trace = workspace.path("trace");
    let strace = Command::new("strace")
        .args(["-f", "-y", "-e", "trace=pwrite64,write,fdatasync,fsync", "-o"])
        .arg(&trace)
        .arg(env!("CARGO_BIN_EXE_compress-model"))
        .args(["compress", "model"])
        .args(server())
        .current_dir(workspace.path(""))
        .stdout(Stdio::null())
        .status();
    if !strace.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no strace here");
        return;
    }
    let trace = fs::read_to_string(trace).unwrap();
    // Names of data files that were written to and not flushed since.
    let mut dirty: Vec<&str> = Vec::new();
    let mut notes = 0;
    for line in trace.lines() {
        let Some(call) = line.split_whitespace().nth(1) else { continue };
        let Some(file) = line.split_once('<').and_then(|(_, rest)| rest.split_once('>')) else {
            continue;
        };
        let file = file.0;
        if file.ends_with(".jsonl") && call.starts_with("write") {
            assert!(dirty.is_empty(), "{dirty:?} not flushed before {line}");
            notes += 1;
        } else if file.ends_with(".safetensors") && file.contains(".out.partial") {
            if call.contains("write") {
                dirty.push(file);
            } else {
                dirty.retain(|name| *name != file);
            }
        }
    }
    assert!(notes > 0, "no notes in {} lines", trace.lines().count());
}

#[test]
fn two_runs_cannot_work_on_the_same_output() {
    let workspace = Workspace::with_tiny_llama(1);
    let mut first = spawn(&workspace, &server(), &[]);
    while !workspace.path(".out.partial").join("journal.jsonl").exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    let second = run(&workspace, &server(), &["--resume"]);
    let code = first.wait().unwrap().code();
    assert_eq!(code, Some(0));
    // The first may have ended while the second was still checking the input.
    if second.code != 4 {
        second.fails(2, &[&format!("process {} is at work", first.id())]);
    }
}

#[test]
fn memory_is_limited_by_threads_and_then_refused() {
    let workspace = Workspace::with_tiny_llama(1);
    let plan = |threads: &str| {
        let args = ["--preset", "server", "--json", "-t", threads];
        workspace.run("plan", "model", &args).ok().json()["peak_memory"].as_u64().unwrap()
    };
    let one = plan("1");
    assert!(one < plan("2") && plan("2") < plan("4"));
    let limited = |limit: u64| {
        let limit = limit.to_string();
        let args = ["-o", "out", "--preset", "server", "-t", "4", "--memory-limit", &limit];
        workspace.run("compress", "model", &[&args[..], &["--json", "--overwrite"]].concat())
    };
    let report = limited(plan("2")).ok().json();
    assert_eq!(report["threads"], 2);
    assert!(report["peak_memory"].as_u64().unwrap() <= plan("2"));
    limited(one - 1).fails(5, &["model.safetensors", "tensor \"model.", "limit"]);
    assert_eq!(limited(one).ok().json()["threads"], 1);
}

/// A folder compressed on other threads, or from other files of the same weights, is rebuilt to
/// the byte; one whose weights were changed is not.
#[test]
fn some_tensors_can_be_built_again() {
    let workspace = Workspace::with_tiny_llama(2);
    run(&workspace, &server(), &[]).ok();
    let rebuild = |against: &str, more: &[&str]| {
        let args = ["--against", against, "--rebuild", "7", "--json"];
        workspace.run("verify", "out", &[&args[..], more].concat())
    };
    let report = rebuild("model", &["-t", "1"]).ok().json();
    let names = report["rebuilt"].as_array().unwrap().clone();
    assert_eq!(names.len(), 7);
    let others = rebuild("model", &["--seed", "3"]).ok().json();
    assert_ne!(others["rebuilt"].as_array().unwrap(), &names, "the seed draws");
    rebuild(tiny_llama().to_str().unwrap(), &[]).ok();

    let manifest = workspace.path("out").join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    let mut edited: Value = serde_json::from_str(&text).unwrap();
    edited["seed"] = 1.into();
    fs::write(&manifest, edited.to_string()).unwrap();
    rebuild("model", &[]).fails(6, &["compressed again, other bytes came out"]);
}

/// Asks a run to stop once it has advanced so many times.
#[derive(Debug)]
struct StopAfter(AtomicUsize);

impl Progress for StopAfter {
    fn begin(&self, _phase: &'static str, _total_bytes: u64) {}
    fn advance(&self, _bytes: u64) {
        let left = |left: usize| Some(left.saturating_sub(1));
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).unwrap();
    }
    fn tensor(&self, _line: &str) {}
    fn stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

#[test]
fn a_run_stopped_before_it_stores_anything_leaves_nothing() {
    let workspace = Workspace::with_tiny_llama(1);
    let checkpoint = Checkpoint::open(&workspace.path("model")).unwrap();
    let plan = Plan::new(&checkpoint, Preset::Server.recipe(), 1 << 30, 1).unwrap();
    let out = workspace.path("out");
    let stop = StopAfter(AtomicUsize::new(3));
    let stopped = compress_resumable(&checkpoint, &plan, &out, 0, None, false, &stop).unwrap_err();
    assert!(matches!(stopped, Error::StoppedEarly), "{stopped}");
    assert_eq!(stopped.exit_code(), 75);
    assert_eq!(workspace.names(), ["model"]);
}

#[cfg(feature = "model")]
#[test]
fn a_transform_stopped_half_way_leaves_nothing() {
    use compress_model::recipe::{RotationKind, Transform};
    use compress_model::transform::Transformed;

    let workspace = Workspace::with_tiny_llama(1);
    let checkpoint = Checkpoint::open(&workspace.path("model")).unwrap();
    let options = Transform { rotation: Some(RotationKind::Hadamard), ..Transform::default() };
    let stop = StopAfter(AtomicUsize::new(3));
    let out = workspace.path("out");
    let stopped = Transformed::create(&checkpoint, &options, None, 0, &out, &stop).unwrap_err();
    assert!(matches!(stopped, Error::StoppedEarly), "{stopped}");
    assert_eq!(workspace.names(), ["model"]);
}

#[cfg(feature = "model")]
#[test]
fn a_stopped_calibration_goes_on_and_gives_the_same_bytes() {
    use compress_model::calibrate::{CalibrationText, TextSettings, calibrate};
    use compress_model::pipeline::Silent;

    let workspace = Workspace::with_tiny_llama(1);
    let folder = workspace.path("model");
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let settings = TextSettings { ctx: 64, windows: 4 };
    let text =
        CalibrationText::read(&folder, &[fixture("calib_cc0.txt").into()], settings).unwrap();
    let (out, whole) = (workspace.path("out"), workspace.path("whole"));
    // The blocks that were finished before are the first to be told of.
    let stop = StopAfter(AtomicUsize::new(2));
    let stopped = calibrate(&checkpoint, &text, &out, false, &stop).unwrap_err();
    assert!(matches!(stopped, Error::Stopped { .. }), "{stopped}");
    assert_eq!(workspace.names(), [".out.partial", "model"]);
    let report = calibrate(&checkpoint, &text, &out, true, &Silent).unwrap();
    assert_eq!(report.resumed_blocks, 1);
    calibrate(&checkpoint, &text, &whole, false, &Silent).unwrap();
    assert!(tree(&out) == tree(&whole));
}
