//! The same tensors, config and options give the same bytes.

use std::fs;

use crate::checkpoints::{LATENT, sdxl, sdxl_folder};
use crate::folder::{Folder, Snapshot, packages};
use crate::program::{args, run};

#[test]
fn path_name_time_and_threads_do_not_matter() {
    let folder = Folder::new();
    let first = sdxl(&folder);
    let second = folder.write(
        "elsewhere/of another name.safetensors",
        fs::read(&first).unwrap(),
    );
    let mut seen: Option<Snapshot> = None;
    for (path, threads, dir) in [
        (&first, "1", "a"),
        (&first, "4", "b"),
        (&second, "4", "other/c"),
        (&first, "1", "d"),
    ] {
        let dir = folder.at(dir);
        run(args![
            "convert",
            path,
            "-o",
            &dir,
            "--threads",
            threads,
            "--chunks",
            "3",
            "--latent-size",
            LATENT
        ])
        .ok();
        let written = packages(&dir);
        assert!(written.len() > 9);
        match &seen {
            None => seen = Some(written),
            Some(seen) => assert!(*seen == written, "{path:?} by {threads}"),
        }
    }
}

#[test]
fn a_config_that_says_what_the_tensors_say_changes_nothing() {
    let folder = Folder::new();
    let path = sdxl_folder(&folder, "model", 1, None);
    let file = path.join("unet/diffusion_pytorch_model.safetensors");
    for (path, dir) in [(&path, "a"), (&file, "b")] {
        run(args![
            "convert",
            path,
            "-o",
            folder.at(dir),
            "--chunks",
            "2",
            "--latent-size",
            LATENT
        ])
        .ok();
    }
    assert!(packages(&folder.at("a")) == packages(&folder.at("b")));
}
