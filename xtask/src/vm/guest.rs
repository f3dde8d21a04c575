//! One run of the virtual machine.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{self, Ended, Next};

/// From power on to `/init`; emulated on a busy machine it takes about three seconds.
const BOOT_LIMIT: Duration = Duration::from_mins(1);

/// Nested KVM may hang rather than fail.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// How the guest's CPU is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// By the host's hardware.
    Kvm,
    /// In software.
    Tcg,
}

/// A machine to run.
pub(super) struct Machine<'a> {
    pub(super) kernel: &'a Path,
    pub(super) initramfs: &'a Path,
    pub(super) root: &'a Path,
    pub(super) input: &'a Path,
    pub(super) cpus: u32,
    pub(super) memory_mb: u32,
    pub(super) accelerator: Accelerator,
}

/// KVM if it really boots this kernel, else emulation. Asked once per boot of the host.
pub(super) fn accelerator(cache: &Path, kernel: &Path, initramfs: &Path) -> Result<Accelerator> {
    if !Path::new("/dev/kvm").exists() {
        return Ok(Accelerator::Tcg);
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let memory = cache.join("kvm");
    let known = fs::read_to_string(&memory).unwrap_or_default();
    let works = if let Some(answer) = known.strip_prefix(&boot) {
        answer == "works"
    } else {
        let mut booted = false;
        let mut command = qemu(
            Accelerator::Kvm,
            kernel,
            initramfs,
            1,
            256,
            "manifold.probe",
        );
        // What it says when it aborts is no news to anybody.
        command.stderr(Stdio::null());
        let ended = process::stream(&mut command, PROBE_LIMIT, |line| {
            booted |= line.ends_with("GUEST boot");
            Next::GoOn
        })?;
        process::keep_going()?;
        let works = booted && ended.success();
        let answer = if works { "works" } else { "does not" };
        fs::write(&memory, format!("{boot}{answer}"))
            .with_context(|| format!("cannot write {}", memory.display()))?;
        works
    };
    Ok(if works {
        Accelerator::Kvm
    } else {
        Accelerator::Tcg
    })
}

/// The machine without its disks and network.
fn qemu(
    accelerator: Accelerator,
    kernel: &Path,
    initramfs: &Path,
    cpus: u32,
    memory_mb: u32,
    arguments: &str,
) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    // q35: microvm hangs under emulation in more than half of its boots.
    match accelerator {
        Accelerator::Kvm => command.args(["-accel", "kvm", "-cpu", "host"]),
        // `max` would have five-level page tables and wide vectors: a quarter more time.
        Accelerator::Tcg => command.args(["-accel", "tcg,thread=multi", "-cpu", "Nehalem"]),
    };
    command
        .args(["-M", "q35,usb=off,vmport=off", "-no-reboot", "-nodefaults"])
        .args(["-display", "none", "-serial", "stdio"])
        .args(["-smp", &cpus.to_string(), "-m", &memory_mb.to_string()])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", &format!("console=ttyS0 quiet panic=-1 reboot=t nokaslr mitigations=off random.trust_cpu=on {arguments}")]);
    command
}

impl Machine<'_> {
    /// Runs it until it turns itself off; a boot that hangs is tried once more.
    pub(super) fn run(
        &self,
        limit: Duration,
        arguments: &str,
        show: &mut dyn FnMut(&str),
    ) -> Result<u8> {
        println!(
            "booting ({:?}, {} CPUs, {} MB)",
            self.accelerator, self.cpus, self.memory_mb
        );
        let start = Instant::now();
        for _ in 0..2 {
            if let Some(status) = self.attempt(limit, arguments, show)? {
                println!(
                    "the guest ran {:.1} s, status {status}",
                    start.elapsed().as_secs_f64()
                );
                return Ok(status);
            }
            println!("the guest did not boot within {} s", BOOT_LIMIT.as_secs());
        }
        bail!("the guest does not boot");
    }

    /// The status of the guest's command, `None` when the guest did not come up.
    fn attempt(
        &self,
        limit: Duration,
        arguments: &str,
        show: &mut dyn FnMut(&str),
    ) -> Result<Option<u8>> {
        let mut command = qemu(
            self.accelerator,
            self.kernel,
            self.initramfs,
            self.cpus,
            self.memory_mb,
            arguments,
        );
        self.add_devices(&mut command);
        let start = Instant::now();
        let mut booted = false;
        let mut ready = false;
        let mut status = None;
        let mut boot_hangs = false;
        let ended = process::stream_ticking(&mut command, limit, |line| {
            let Some(line) = line else {
                boot_hangs = !booted && start.elapsed() > BOOT_LIMIT;
                return if boot_hangs { Next::Stop } else { Next::GoOn };
            };
            // The firmware leaves escape sequences before the first line.
            if let Some((_, said)) = line.split_once("GUEST ") {
                if said == "boot" {
                    booted = true;
                } else if let Some(number) = said.strip_prefix("status ") {
                    status = number.trim().parse::<u8>().ok();
                } else {
                    ready |= said.starts_with("ready");
                    println!("[{:.1} s] guest {said}", start.elapsed().as_secs_f64());
                }
            } else if ready && status.is_none() {
                show(line);
            } else if booted && status.is_none() {
                println!("{line}");
            }
            Next::GoOn
        })?;
        match (ended, status) {
            (Ended::Status(_), Some(status)) => Ok(Some(status)),
            (Ended::Stopped, _) if boot_hangs => Ok(None),
            (ended, _) => bail!("the guest gave no status: {ended}"),
        }
    }

    fn add_devices(&self, command: &mut Command) {
        let disks = [
            ("root", self.root, "snapshot=on"),
            ("in", self.input, "readonly=on"),
        ];
        for (name, file, mode) in disks {
            let file = file.display().to_string().replace(',', ",,");
            command
                .args([
                    "-drive",
                    &format!("if=none,id={name},file={file},format=raw,{mode}"),
                ])
                .args([
                    "-device",
                    &format!("virtio-blk-pci,drive={name},serial={name}"),
                ]);
        }
        command.args(["-netdev", "user,id=net"]);
        command.args(["-device", "virtio-net-pci,netdev=net"]);
    }
}
