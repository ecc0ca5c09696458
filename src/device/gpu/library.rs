//! The vendors' libraries: where they are, and which of their functions.
//!
//! Bindings load a library by a few plain names, which a runtime-only installation, a Python wheel or a
//! library of another version does not have. So the folders where one may lie are searched here, and a
//! folder of links under the plain names is made in the cache; the worker and the compiler are started
//! with it in their environment. Nothing is loaded in this process.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::CompileError;
use super::super::cache;
use super::Api;

/// A symbol that a library does not have.
pub(super) struct Missing(pub(super) &'static str);

/// A table of C functions that return a number, looked up by their names.
macro_rules! calls {
    (
        $(#[$doc:meta])*
        struct $table:ident { $($name:ident($($arg:ident: $type:ty),* $(,)?);)* }
    ) => {
        $(#[$doc])*
        #[allow(non_snake_case)]
        struct $table { $($name: unsafe extern "C" fn($($arg: $type),*) -> std::ffi::c_uint),* }

        impl $table {
            fn load(library: &'static libloading::Library) -> std::result::Result<$table, library::Missing> {
                Ok($table {
                    // SAFETY: the types are those of the vendor's own header, for all versions used.
                    $($name: unsafe { library.get(concat!(stringify!($name), "\0").as_bytes()) }
                        .map(|symbol| *symbol)
                        .map_err(|_| library::Missing(stringify!($name)))?),*
                })
            }
        }
    };
}
pub(super) use calls;

/// What a library is called: the plain names that bindings look for, first.
const NVRTC: [&str; 4] = ["libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2"];
const HIP: [&str; 4] =
    ["libamdhip64.so", "libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5"];
const HIPRTC: [&str; 4] = ["libhiprtc.so", "libhiprtc.so.7", "libhiprtc.so.6", "libhiprtc.so.5"];

/// The libraries of an API that were found.
#[derive(Debug, Clone, Default)]
pub(super) struct Libraries {
    /// Links by the names under which they are looked for.
    links: Vec<(&'static str, PathBuf)>,
}

impl Libraries {
    /// Looks for an API's libraries in the folders where they are wont to be. `variable` gives
    /// environment variables.
    pub(super) fn find(api: Api, variable: &dyn Fn(&str) -> Option<OsString>) -> Libraries {
        let folders = folders(api, variable);
        let mut links = Vec::new();
        match api {
            Api::Cuda => {
                let own = variable("ATTNBENCH_NVRTC").map(PathBuf::from);
                links.extend(own.or_else(|| first(&folders, &NVRTC)).map(|path| (NVRTC[0], path)));
            }
            Api::Hip => {
                if let Some(hip) = first(&folders, &HIP) {
                    // Up to ROCm 5 the compiler is a part of the runtime's library.
                    let beside = hip.parent().map(Path::to_owned).into_iter().collect::<Vec<_>>();
                    let rtc = first(&beside, &HIPRTC).unwrap_or_else(|| hip.clone());
                    links.extend([(HIP[0], hip), (HIPRTC[0], rtc)]);
                }
            }
        }
        Libraries { links }
    }

    /// What the compiler's results depend on: the file, its size and its age.
    pub(super) fn identity(&self) -> String {
        let mut words = Vec::new();
        for (_, path) in &self.links {
            let path = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
            let (bytes, age) =
                fs::metadata(&path).map_or((0, None), |m| (m.len(), m.modified().ok()));
            words.push(format!("{} {bytes} {age:?}", path.display()));
        }
        words.join("; ")
    }

    /// The folder where a library lies, links followed.
    pub(super) fn folder(&self) -> Option<PathBuf> {
        let (_, path) = self.links.first()?;
        fs::canonicalize(path).ok()?.parent().map(Path::to_owned)
    }

    /// Sets a child's environment so that it finds them.
    ///
    /// # Errors
    /// [`CompileError::Io`] where the folder of links cannot be made.
    pub(super) fn give_to(
        &self,
        command: &mut Command,
        cache_dir: &Path,
    ) -> Result<(), CompileError> {
        if self.links.is_empty() {
            return Ok(());
        }
        let hash = blake3::hash(self.identity().as_bytes()).to_hex();
        let folder = cache_dir.join(format!("libraries-{}", &hash.as_str()[..16]));
        fs::create_dir_all(&folder).map_err(|e| cache::unwritable(&folder, &e))?;
        let mut path = vec![folder.clone()];
        for (name, target) in &self.links {
            let target = fs::canonicalize(target).unwrap_or_else(|_| target.clone());
            let link = folder.join(name);
            if fs::read_link(&link).ok().as_deref() != Some(&*target) {
                // Two programs may make it at once; either's is right.
                let _ = fs::remove_file(&link);
                let made = std::os::unix::fs::symlink(&target, &link);
                if !link.exists() {
                    made.map_err(|e| cache::unwritable(&link, &e))?;
                }
            }
            path.extend(target.parent().map(Path::to_owned));
        }
        path.extend(env::var_os("LD_LIBRARY_PATH").iter().flat_map(env::split_paths));
        if let Ok(path) = env::join_paths(path) {
            command.env("LD_LIBRARY_PATH", path);
        }
        // hip-sys looks there first, and takes the plain names.
        command.env("HIP_PATH", &folder).env_remove("ROCM_PATH");
        Ok(())
    }
}

/// Folders where an API's libraries may lie, the likeliest first.
fn folders(api: Api, variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    let set = |name: &str| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let in_path = set("LD_LIBRARY_PATH");
    let in_path = in_path.iter().flat_map(env::split_paths).collect::<Vec<_>>();
    match api {
        Api::Cuda => {
            for home in ["CUDA_HOME", "CUDA_PATH"].iter().filter_map(|name| set(name)) {
                folders.extend(["lib64", "lib", "targets/x86_64-linux/lib"].map(|f| home.join(f)));
            }
            folders.extend(in_path);
            folders.push("/usr/local/cuda/lib64".into());
            folders.extend(newest("/usr/local", "cuda-", "lib64"));
            folders.push("/opt/cuda/lib64".into());
            // As Python packages install it.
            let pythons = ["VIRTUAL_ENV", "CONDA_PREFIX"].iter().filter_map(|name| set(name));
            for home in pythons {
                for python in
                    newest(&home.join("lib").to_string_lossy(), "python3", "site-packages")
                {
                    folders.extend(
                        ["nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"].map(|f| python.join(f)),
                    );
                }
                folders.push(home.join("lib"));
            }
        }
        Api::Hip => {
            for home in ["HIP_PATH", "ROCM_PATH"].iter().filter_map(|name| set(name)) {
                folders.extend([home.join("lib"), home.join("lib64"), home]);
            }
            folders.extend(in_path);
            folders.push("/opt/rocm/lib".into());
            folders.extend(newest("/opt", "rocm-", "lib"));
        }
    }
    let triple = format!("/usr/lib/{}-linux-gnu", env::consts::ARCH);
    folders.extend([
        triple.into(),
        "/usr/lib64".into(),
        "/usr/lib".into(),
        "/usr/local/lib".into(),
    ]);
    folders
}

/// Folders `PARENT/PREFIX…/BELOW`, the highest name first.
fn newest(parent: &str, prefix: &str, below: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let named = |name: &OsStr| name.to_string_lossy().starts_with(prefix);
    let mut found: Vec<PathBuf> =
        entries.filter(|e| named(&e.file_name())).map(|e| e.path().join(below)).collect();
    found.sort();
    found.reverse();
    found
}

fn first(folders: &[PathBuf], names: &[&str]) -> Option<PathBuf> {
    let all = folders.iter().flat_map(|folder| names.iter().map(|name| folder.join(name)));
    all.into_iter().find(|path| path.is_file())
}

/// The environment variables that hide devices, as they are set.
pub(super) fn visible_devices() -> String {
    let show = |name: &str| match env::var(name) {
        Ok(value) => format!("{name}={value}"),
        Err(_) => format!("{name} is not set"),
    };
    let names = ["ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"];
    names.map(show).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The libraries that are found where only this folder is named.
    fn found(api: Api, name: &str, folder: &Path) -> Libraries {
        let own = folder.as_os_str().to_owned();
        Libraries::find(api, &|variable| (variable == name).then(|| own.clone()))
    }

    #[test]
    fn a_runtime_without_plain_names_is_given_them() {
        let dir = tempfile::tempdir().unwrap();
        let lib = dir.path().join("lib");
        fs::create_dir(&lib).unwrap();
        for name in ["libamdhip64.so.7", "libhiprtc.so.7"] {
            fs::write(lib.join(name), name).unwrap();
        }
        let libraries = found(Api::Hip, "ROCM_PATH", dir.path());
        let mut command = Command::new("true");
        libraries.give_to(&mut command, &dir.path().join("cache")).unwrap();
        let of = |name: &str| {
            let set = command.get_envs().find(|(own, _)| *own == name).expect("set");
            set.1.map(PathBuf::from)
        };
        let links = of("HIP_PATH").unwrap();
        for name in ["libamdhip64.so", "libhiprtc.so"] {
            assert_eq!(fs::read_to_string(links.join(name)).unwrap(), format!("{name}.7"));
        }
        // hip-sys would look there first.
        assert_eq!(of("ROCM_PATH"), None);
        let path: Vec<PathBuf> =
            env::split_paths(&of("LD_LIBRARY_PATH").unwrap()).take(2).collect();
        assert_eq!(path, [links, fs::canonicalize(&lib).unwrap()]);
    }

    #[test]
    fn before_rocm_6_the_compiler_is_in_the_runtimes_library() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("libamdhip64.so.5"), "").unwrap();
        let libraries = found(Api::Hip, "HIP_PATH", dir.path());
        let file = dir.path().join("libamdhip64.so.5");
        assert_eq!(libraries.links, [(HIP[0], file.clone()), (HIPRTC[0], file)]);
    }

    #[test]
    fn another_file_is_another_compiler() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("libnvrtc.so.12");
        fs::write(&file, "1").unwrap();
        let identity = || found(Api::Cuda, "LD_LIBRARY_PATH", dir.path()).identity();
        let before = identity();
        assert!(before.contains("libnvrtc.so.12"), "{before}");
        fs::write(&file, "12").unwrap();
        assert_ne!(identity(), before);
        let named = found(Api::Cuda, "ATTNBENCH_NVRTC", &file);
        assert_eq!(named.links, [(NVRTC[0], file)]);
    }
}
