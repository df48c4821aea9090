//! Pictures: opened beneath the queue folder, bounded before decoding, known by content, and stripped
//! of what they say about the photographer. The bytes that were read and signed off are the bytes sent.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use sha2::{Digest, Sha256};

use crate::core::announcement::Image;
use crate::core::words::{Words, shown, words};

/// The largest picture any platform takes is 16 MiB.
const MOST_BYTES: u64 = 16 << 20;
/// A picture of more pixels is a bomb: it cannot be under the byte limit and shown by anyone.
const MOST_PIXELS: usize = 100_000_000;

/// Opens a regular file for reading; a FIFO, device, socket or folder is refused without waiting for it.
pub fn open_regular(path: &Path) -> std::io::Result<File> {
    let file =
        rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())?;
    regular(File::from(file))
}

fn regular(file: File) -> std::io::Result<File> {
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

/// Opens a file below `root`, whatever links lie on the way: the kernel refuses to leave the folder (R39).
fn open_beneath(root: &Path, file: &str) -> std::io::Result<File> {
    let folder = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let opened = rustix::fs::openat2(
        &folder,
        file,
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS,
    )?;
    regular(File::from(opened))
}

/// Reads a picture's bytes, stripped, if it is one of the kinds the platforms take.
pub fn load(root: &Path, file: &str) -> Result<(Image, Vec<u8>), Words> {
    let safe = shown(file);
    if file.contains('\0') || file.starts_with('/') || file.split('/').any(|p| p == "..") {
        return Err(words!("图片 `{safe}` 在队列文件夹之外", "the picture `{safe}` lies outside the queue folder"));
    }
    let opened = open_beneath(root, file)
        .map_err(|error| words!("图片 `{safe}` 打不开：{error}", "the picture `{safe}` cannot be opened: {error}"))?;
    let mut bytes = Vec::new();
    let read = opened.take(MOST_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| words!("图片 `{safe}` 读不了：{error}", "the picture `{safe}` cannot be read: {error}"))?;
    if bytes.is_empty() {
        return Err(words!("图片 `{safe}` 是空的", "the picture `{safe}` is empty"));
    }
    if bytes.len() as u64 > MOST_BYTES {
        return Err(words!("图片 `{safe}` 超过 16 MiB", "the picture `{safe}` is over 16 MiB"));
    }
    let kind = kind_of(&bytes).ok_or_else(|| {
        words!("`{safe}` 不是 PNG、JPEG、GIF、WebP 或 BMP 图片", "`{safe}` is no PNG, JPEG, GIF, WebP or BMP picture")
    })?;
    let size =
        imagesize::blob_size(&bytes).map_err(|_| words!("图片 `{safe}` 已损坏", "the picture `{safe}` is damaged"))?;
    if size.width.saturating_mul(size.height) > MOST_PIXELS {
        let (w, h) = (size.width, size.height);
        return Err(words!("图片 `{safe}` 有 {w}×{h} 像素，过大", "the picture `{safe}` has {w}×{h} pixels, too many"));
    }
    if !is_whole(kind, &bytes) {
        return Err(words!("图片 `{safe}` 不完整", "the picture `{safe}` is cut short"));
    }
    let bytes = stripped(kind, bytes);
    let image = Image {
        file: file.to_owned(),
        alt: None,
        sha256: hex::encode(Sha256::digest(&bytes)),
        bytes: bytes.len() as u64,
        kind: kind.to_owned(),
    };
    Ok((image, bytes))
}

fn kind_of(bytes: &[u8]) -> Option<&'static str> {
    use imagesize::ImageType;
    match imagesize::image_type(bytes).ok()? {
        ImageType::Png => Some("png"),
        ImageType::Jpeg => Some("jpeg"),
        ImageType::Gif => Some("gif"),
        ImageType::Webp => Some("webp"),
        ImageType::Bmp => Some("bmp"),
        _ => None,
    }
}

fn is_whole(kind: &str, bytes: &[u8]) -> bool {
    let tail = &bytes[bytes.len().saturating_sub(64)..];
    match kind {
        "png" => tail.windows(4).any(|w| w == b"IEND"),
        "jpeg" => tail.windows(2).any(|w| w == [0xff, 0xd9]),
        "gif" => tail.contains(&0x3b),
        _ => true,
    }
}

/// Without the chunks that carry where and with what it was taken.
fn stripped(kind: &str, bytes: Vec<u8>) -> Vec<u8> {
    match kind {
        "jpeg" => strip_jpeg(&bytes).unwrap_or(bytes),
        "png" => strip_png(&bytes).unwrap_or(bytes),
        _ => bytes,
    }
}

fn strip_jpeg(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = bytes.get(..2)?.to_vec();
    let mut at = 2;
    loop {
        let (mark, kind) = (*bytes.get(at)?, *bytes.get(at + 1)?);
        if mark != 0xff {
            return None;
        }
        // From the start of scan on, all is picture.
        if kind == 0xda {
            out.extend_from_slice(&bytes[at..]);
            return Some(out);
        }
        let length = usize::from(u16::from_be_bytes([*bytes.get(at + 2)?, *bytes.get(at + 3)?]));
        let segment = bytes.get(at..at + 2 + length)?;
        // APP1 holds Exif and XMP, APP13 IPTC, FE a comment; the others are needed to show it right.
        if !matches!(kind, 0xe1 | 0xed | 0xfe) {
            out.extend_from_slice(segment);
        }
        at += 2 + length;
    }
}

fn strip_png(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = bytes.get(..8)?.to_vec();
    let mut at = 8;
    while at < bytes.len() {
        let length = u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize;
        let kind = bytes.get(at + 4..at + 8)?;
        let chunk = bytes.get(at..at.checked_add(length)?.checked_add(12)?)?;
        if !matches!(kind, b"eXIf" | b"tEXt" | b"iTXt" | b"zTXt" | b"tIME") {
            out.extend_from_slice(chunk);
        }
        at += length + 12;
    }
    Some(out)
}

/// Why a secret file is not trusted: others can read it, or could put another in its place (R35).
pub fn read_secret(path: &Path) -> Result<String, Words> {
    let name = shown(&path.display().to_string());
    let unreadable = |error: std::io::Error| {
        words!("密钥文件 {name} 读不了：{error}", "the secret file {name} cannot be read: {error}")
    };
    let link =
        rustix::fs::statat(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| unreadable(e.into()))?;
    if FileType::from_raw_mode(link.st_mode) != FileType::RegularFile {
        return Err(words!("密钥文件 {name} 不是普通文件", "the secret file {name} is not a regular file"));
    }
    let mut file = open_regular(path).map_err(unreadable)?;
    let mode = rustix::fs::fstat(&file).map_err(|e| unreadable(e.into()))?.st_mode & 0o777;
    if mode & 0o077 != 0 {
        return Err(words!(
            "密钥文件 {name} 的权限是 {mode:o}，他人可读；请 chmod 600",
            "the secret file {name} has mode {mode:o}, so others can read it: chmod 600"
        ));
    }
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        let mode = rustix::fs::stat(folder).map_err(|e| unreadable(e.into()))?.st_mode;
        // In a sticky folder nobody can replace another's file.
        if mode & 0o002 != 0 && mode & 0o1000 == 0 {
            return Err(words!(
                "密钥文件 {name} 所在文件夹他人可写",
                "the folder of the secret file {name} can be written by others"
            ));
        }
    }
    let mut text = String::new();
    file.by_ref().take(64 << 10).read_to_string(&mut text).map_err(unreadable)?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Err(words!("密钥文件 {name} 是空的", "the secret file {name} is empty"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    /// A 1×1 PNG with a text chunk.
    fn png() -> Vec<u8> {
        let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
        for (kind, data) in [
            (b"IHDR", &[0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0][..]),
            (b"tEXt", b"GPS\x0031.2,121.4"),
            (b"IDAT", &[0x78, 0x9c, 0x63, 0, 0, 0, 2, 0, 1]),
            (b"IEND", &[]),
        ] {
            bytes.extend((data.len() as u32).to_be_bytes());
            bytes.extend(kind);
            bytes.extend(data);
            bytes.extend([0; 4]);
        }
        bytes
    }

    #[test]
    fn r39_files_stay_inside_and_carry_no_place() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("queue");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("a.png"), png()).unwrap();
        std::fs::write(folder.path().join("secret.png"), png()).unwrap();
        symlink(folder.path().join("secret.png"), root.join("link.png")).unwrap();
        std::fs::write(root.join("text.jpg"), "no picture").unwrap();
        std::fs::write(root.join("cut.png"), &png()[..60]).unwrap();
        std::fs::write(root.join("empty.png"), "").unwrap();
        std::fs::create_dir(root.join("folder.png")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, root.join("pipe.png"), Mode::from_raw_mode(0o600)).unwrap();
        let mut bomb = png();
        bomb[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
        std::fs::write(root.join("bomb.png"), bomb).unwrap();

        let (image, bytes) = load(&root, "a.png").unwrap();
        assert_eq!(image.kind, "png");
        assert!(!bytes.windows(3).any(|w| w == b"GPS"));
        for bad in [
            "../secret.png",
            "/etc/passwd",
            "link.png",
            "text.jpg",
            "cut.png",
            "empty.png",
            "folder.png",
            "pipe.png",
            "bomb.png",
            "missing.png",
            "img/../../x",
            "a\0b",
        ] {
            assert!(load(&root, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn r35_a_secret_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "2.00canary\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_secret(&path).unwrap(), "2.00canary");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let said = read_secret(&path).unwrap_err();
        assert!(said.en.contains("chmod 600") && !said.en.contains("canary"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(read_secret(&link).is_err(), "a symlink");
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(read_secret(&path).is_err(), "a folder others can write");
    }
}
