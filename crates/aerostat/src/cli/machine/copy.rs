//! `aerostat machine cp`: files travel as tar archives, as in docker cp.
//!
//! A path in a machine is `MACHINE:/path`; `-` is a tar archive on standard input or output. A
//! destination that is a directory, or ends in a slash, receives the source under its own name;
//! any other is its new name.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use client::{Archive, Client};
use futures::stream;
use tokio::sync::mpsc;

use super::InApp;
use super::find::{Found, One};
use crate::cli::{Context, Refused, output};

/// Pieces of an archive on their way between a thread and the connection.
const PIECES_MAX: usize = 16;
/// Bytes of one of them.
const PIECE_BYTES: usize = 64 << 10;
/// A header of tar(5), and where in it the type stands.
const HEADER_BYTES: usize = 512;
const HEADER_TYPE: usize = 156;

#[derive(Debug, Args)]
pub(in crate::cli) struct Copy {
    /// What to copy: a path here, MACHINE:/path, or - for a tar archive
    source: Place,
    /// Where to
    destination: Place,
    #[command(flatten)]
    scope: InApp,
    /// Container to copy from or to [default: the first]
    #[arg(short, long)]
    container: Option<String>,
}

/// One side of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Here(PathBuf),
    There { machine: String, path: String },
    Stream,
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("a path in a machine is absolute: MACHINE:/path")]
struct NotAbsolute;

impl FromStr for Place {
    type Err = NotAbsolute;
    fn from_str(text: &str) -> Result<Self, NotAbsolute> {
        match text.split_once(':') {
            _ if text == "-" => Ok(Self::Stream),
            // A file whose name has a colon is written with its directory: ./a:b
            Some((machine, path)) if !machine.starts_with(['.', '/']) && !machine.is_empty() => {
                if !path.starts_with('/') {
                    return Err(NotAbsolute);
                }
                Ok(Self::There {
                    machine: machine.to_owned(),
                    path: path.to_owned(),
                })
            }
            Some(_) | None => Ok(Self::Here(text.into())),
        }
    }
}

/// A machine's side, found.
struct There {
    client: Client,
    found: Found,
    container: Option<String>,
    path: String,
}

impl Copy {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.client()?;
        let (scope, container) = (self.scope, self.container);
        let find = async |machine: String, path: String| {
            let found = One { machine, scope }.find(&client).await?;
            anyhow::Ok(There {
                client: client.clone(),
                found,
                container,
                path,
            })
        };
        let told = match (self.source, self.destination) {
            (Place::There { machine, path }, Place::Here(to)) => {
                let there = find(machine, path).await?;
                there.download(&to).await?
            }
            (Place::There { machine, path }, Place::Stream) => {
                let mut archive = find(machine, path).await?.archive().await?;
                while let Some(piece) = archive.next().await {
                    output::write(&piece?)?;
                }
                return Ok(());
            }
            (Place::Here(from), Place::There { machine, path }) => {
                find(machine, path).await?.upload(from).await?
            }
            (Place::Stream, Place::There { machine, path }) => {
                let there = find(machine, path).await?;
                let path = there.path.clone();
                there
                    .put(&path, |writer| {
                        io::copy(&mut io::stdin().lock(), writer).map(drop)
                    })
                    .await?;
                format!("unpacked standard input in {path}")
            }
            _ => {
                return Err(Refused(
                    "one side has to be in a machine, and the other not: MACHINE:/path".into(),
                )
                .into());
            }
        };
        eprintln!("{told}");
        Ok(())
    }
}

impl There {
    async fn archive(&self) -> anyhow::Result<Archive> {
        let (app, id) = (&self.found.app, &self.found.machine.id);
        let container = self.container.as_deref();
        Ok(self
            .client
            .get_files(app, id, container, &self.path)
            .await?)
    }

    /// Whether there is a directory of this name in the machine: the first header of its archive
    /// tells.
    async fn is_directory(&self) -> bool {
        let Ok(mut archive) = self.archive().await else {
            return false;
        };
        let mut head = Vec::new();
        while let Some(Ok(piece)) = archive.next().await {
            head.extend_from_slice(&piece);
            if head.len() >= HEADER_BYTES {
                return head[HEADER_TYPE] == b'5';
            }
        }
        false
    }

    async fn download(self, to: &Path) -> anyhow::Result<String> {
        let name = Path::new(&self.path).file_name();
        let target = match (to.is_dir(), name) {
            (true, Some(name)) => to.join(name),
            (true, None) | (false, _) => to.to_owned(),
        };
        let mut archive = self.archive().await?;
        let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES_MAX);
        let (path, into) = (self.path.clone(), target.clone());
        let unpack = tokio::task::spawn_blocking(move || unpack(Pieces::new(receiver), &into));
        while let Some(piece) = archive.next().await {
            let piece = piece.map_err(|error| io::Error::other(error.to_string()));
            if sender.send(piece).await.is_err() {
                break;
            }
        }
        drop(sender);
        let files = unpack.await?;
        let files = files.with_context(|| format!("cannot write {}", target.display()))?;
        if files == 0 {
            bail!("there was nothing in the archive of {path}; look with: machine exec … ls");
        }
        Ok(format!("{files} files copied to {}", target.display()))
    }

    async fn upload(self, from: PathBuf) -> anyhow::Result<String> {
        let meta = from
            .symlink_metadata()
            .with_context(|| format!("cannot read {}", from.display()))?;
        let own = from.canonicalize()?;
        let own = own.file_name().context("the root directory has no name")?;
        let (folder, name) = match self.path.ends_with('/') || self.is_directory().await {
            true => (self.path.clone(), PathBuf::from(own)),
            false => {
                let (folder, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
                let folder = if folder.is_empty() { "/" } else { folder };
                (folder.to_owned(), PathBuf::from(name))
            }
        };
        let told = format!(
            "copied to {}:{folder}/{}",
            self.found.machine.name,
            name.display()
        );
        let told = told.replace("//", "/");
        self.put(&folder, move |writer| {
            let mut archive = tar::Builder::new(writer);
            archive.follow_symlinks(false);
            match meta.is_dir() {
                true => archive.append_dir_all(&name, &from)?,
                false => archive.append_path_with_name(&from, &name)?,
            }
            archive.into_inner().map(drop)
        })
        .await?;
        Ok(told)
    }

    /// Sends what `write` writes to be unpacked in `folder`.
    async fn put(
        &self,
        folder: &str,
        write: impl FnOnce(&mut io::BufWriter<Outlet>) -> io::Result<()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let (sender, receiver) = mpsc::channel(PIECES_MAX);
        let outlet = Outlet {
            sender: sender.clone(),
        };
        let writing = tokio::task::spawn_blocking(move || {
            let mut outlet = io::BufWriter::with_capacity(PIECE_BYTES, outlet);
            let result = write(&mut outlet).and_then(|()| outlet.flush());
            if let Err(error) = &result {
                // The other side must not take half an archive for a whole one.
                let _ = sender.blocking_send(Err(io::Error::other(error.to_string())));
            }
            result
        });
        let pieces = stream::unfold(receiver, async |mut receiver| {
            receiver.recv().await.map(|piece| (piece, receiver))
        });
        let (app, id) = (&self.found.app, &self.found.machine.id);
        let container = self.container.as_deref();
        let sent = self
            .client
            .put_files(app, id, container, folder, pieces)
            .await;
        let written = writing.await?;
        sent?;
        written.context("cannot read what is to be copied")
    }
}

/// Writes go to the connection.
struct Outlet {
    sender: mpsc::Sender<io::Result<Bytes>>,
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        match self.sender.blocking_send(Ok(piece)) {
            Ok(()) => Ok(bytes.len()),
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads come from the connection.
struct Pieces {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Pieces {
    fn new(receiver: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self {
            receiver,
            piece: Bytes::new(),
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let length = into.len().min(self.piece.len());
        into[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

/// Unpacks an archive of one file or directory as `target`, and counts the files. A machine is not
/// trusted: nothing is written outside.
fn unpack(pieces: impl Read, target: &Path) -> io::Result<usize> {
    // Beside the target, so that it gets its name in one step, or when it is a directory that
    // exists, what is new in it.
    let parent = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    let staging = parent.join(format!(".aerostat-cp-{}", std::process::id()));
    std::fs::create_dir(&staging)?;
    let result = (|| {
        let mut files = 0;
        for entry in tar::Archive::new(pieces).entries()? {
            let mut entry = entry?;
            let is_directory = entry.header().entry_type().is_dir();
            // `unpack_in` refuses every way out: `..`, absolute paths, links that lead outside.
            if entry.unpack_in(&staging)? && !is_directory {
                files += 1;
            }
        }
        let mut made = std::fs::read_dir(&staging)?;
        if let Some(made) = made.next() {
            std::fs::rename(made?.path(), target)?;
            files = files.max(1);
        }
        Ok(files)
    })();
    std::fs::remove_dir_all(&staging)?;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_path_here_or_in_a_machine() {
        let here = |path: &str| Place::Here(path.into());
        let read = |text: &str| text.parse::<Place>().unwrap();
        assert_eq!(read("a.txt"), here("a.txt"));
        assert_eq!(read("./a:b"), here("./a:b"));
        assert_eq!(read("-"), Place::Stream);
        let (machine, path) = ("web".to_owned(), "/etc/hosts".to_owned());
        assert_eq!(read("web:/etc/hosts"), Place::There { machine, path });
        assert!("web:hosts".parse::<Place>().is_err());
    }

    fn archive(name: &str) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        // Past the checks of the crate, as a hostile machine would.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(2);
        header.set_mode(0o644);
        header.set_cksum();
        let mut archive = tar::Builder::new(Vec::new());
        archive.append(&header, &b"hi"[..]).unwrap();
        archive.into_inner().unwrap()
    }

    #[test]
    fn an_archive_becomes_the_target_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("mine");
        assert_eq!(unpack(&archive("theirs")[..], &target).unwrap(), 1);
        assert_eq!(std::fs::read(&target).unwrap(), b"hi");
        let outside = folder.path().join("outside");
        let _ = unpack(&archive("../outside")[..], &folder.path().join("x"));
        assert!(!outside.exists());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
