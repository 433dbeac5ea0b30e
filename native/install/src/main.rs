//! Copies libportcullis.so, which is beside this program in its image, into a directory: what an init container does
//! for Envoy.
//!
//! It is linked statically, since the image has nothing else in it.
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

const MODULE: &str = "libportcullis.so";

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let (Some(directory), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: install DIRECTORY");
        return ExitCode::from(2);
    };
    match env::current_exe().and_then(|program| install(&program.with_file_name(MODULE), Path::new(&directory))) {
        Ok(module) => {
            println!("{}", module.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cannot copy {MODULE} into {}: {error}", Path::new(&directory).display());
            ExitCode::FAILURE
        }
    }
}

/// Under another name first, so that nothing can load a part of it.
fn install(module: &Path, directory: &Path) -> io::Result<PathBuf> {
    let part = directory.join(".libportcullis.so.part");
    let whole = directory.join(MODULE);
    fs::copy(module, &part)?;
    fs::rename(&part, &whole)?;
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_the_module_and_replaces_an_older_one() {
        let directory = env::temp_dir().join(format!("install-{}", std::process::id()));
        fs::create_dir_all(directory.join("into")).unwrap();
        let module = directory.join("built.so");
        for content in ["old", "new"] {
            fs::write(&module, content).unwrap();
            let whole = install(&module, &directory.join("into")).unwrap();
            assert_eq!(fs::read_to_string(whole).unwrap(), content);
        }
        assert_eq!(fs::read_dir(directory.join("into")).unwrap().count(), 1);
        assert!(install(&module, &directory.join("absent")).is_err());
        fs::remove_dir_all(directory).unwrap();
    }
}
