//! Hosts that have closed standard descriptors: what the crate opens does not take their numbers, and a worker has all three.

use std::collections::HashMap;
use std::fs;

use concurrent_futures::{ProcessPoolExecutor, SharedBytes, Stdio, Transport};

use super::support::*;

/// Where each open descriptor of this process leads.
fn open_files() -> HashMap<i32, String> {
    let target = |fd: i32| Some((fd, fs::read_link(format!("/proc/self/fd/{fd}")).ok()?.display().to_string()));
    open_descriptors().into_iter().filter_map(target).collect()
}

/// Runs `body` with these standard descriptors closed.
#[allow(unsafe_code)]
fn without(closed: &[i32], body: impl FnOnce()) {
    // SAFETY: the descriptors are this test's affair: the process is its own. All come back.
    unsafe {
        let kept: Vec<i32> = closed.iter().map(|fd| libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, 100)).collect();
        closed.iter().for_each(|fd| assert_eq!(libc::close(*fd), 0));
        body();
        for (fd, kept) in closed.iter().zip(kept) {
            assert_eq!(libc::dup2(kept, *fd), *fd);
            libc::close(kept);
        }
    }
}

const SETS: [&[i32]; 5] = [&[1], &[0], &[2], &[1, 2], &[0, 1, 2]];

/// What a worker has, and what the host has meanwhile, with a pool that is built and used while those are closed.
fn look(closed: &[i32], stdio: Stdio, transport: Transport) {
    let outside = open_files();
    without(closed, || {
        let before = open_descriptors();
        let pool = ProcessPoolExecutor::builder().max_workers(1).stdio(stdio).transport(transport).build().unwrap();
        let bytes = SharedBytes::copy_from(&[7; 5000]).unwrap();
        let echo = |bytes: SharedBytes| (SharedBytes::copy_from(&bytes).unwrap(), open_files());
        let (back, inside) = pool.submit(echo, bytes.clone()).result().unwrap();
        let plug = Plug::new(&pool);
        let ours: Vec<i32> = open_descriptors().into_iter().filter(|fd| !before.contains(fd)).collect();
        plug.release();
        assert!(ours.len() > 3 && ours.iter().all(|fd| *fd > 2), "{closed:?}: the crate has {ours:?}");
        assert_eq!(*back, *bytes);
        assert_eq!(inside[&0], "/dev/null");
        for fd in [1, 2] {
            let expected = match stdio {
                _ if closed.contains(&fd) && stdio == Stdio::Inherit => "/dev/null",
                Stdio::Inherit => &outside[&fd],
                Stdio::Null => "/dev/null",
                _ => "pipe:",
            };
            assert!(inside[&fd].starts_with(expected), "{closed:?}, {stdio:?}: {inside:?}");
        }
        let standard = ["/dev/null", &*outside[&1], &*outside[&2], "pipe:"];
        let above = inside.iter().filter(|(fd, _)| **fd > 2);
        for (fd, file) in above {
            assert!(!standard.iter().any(|name| file.starts_with(name)), "{closed:?}: {fd} is {file}");
        }
        // What is printed goes nowhere, and hurts nobody.
        println!("into the void");
        eprintln!("into the void");
        let long = vec![1u8; 1 << 20];
        assert!(pool.submit(|bytes: Vec<u8>| bytes, long.clone()).result().unwrap() == long);
    });
}

#[test]
fn inherited() {
    alone("stdio::inherited", || SETS.iter().for_each(|closed| look(closed, Stdio::Inherit, Transport::Auto)));
}

#[test]
fn captured() {
    alone("stdio::captured", || SETS.iter().for_each(|closed| look(closed, Stdio::Capture, Transport::Auto)));
}

#[test]
fn null() {
    alone("stdio::null", || SETS.iter().for_each(|closed| look(closed, Stdio::Null, Transport::Auto)));
}

#[test]
fn over_the_socket() {
    alone("stdio::over_the_socket", || {
        SETS.iter().for_each(|closed| look(closed, Stdio::Inherit, Transport::Socket));
    });
}

// What a task prints does not end up in a file that it has opened.
#[test]
fn what_a_task_prints_is_not_in_its_files() {
    alone("stdio::what_a_task_prints_is_not_in_its_files", || {
        without(&[1, 2], || {
            let folder = Folder::new();
            let pool = ProcessPoolExecutor::builder().max_workers(1).build().unwrap();
            let print = |path: std::path::PathBuf| {
                let _file = fs::File::create(path).unwrap();
                println!("for standard output");
                eprintln!("for standard error");
            };
            let path = folder.path().join("file");
            pool.submit(print, path.clone()).result().unwrap();
            assert_eq!(fs::read_to_string(path).unwrap(), "");
        });
    });
}
