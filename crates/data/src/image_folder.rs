//! A folder of images, a folder a class: the layout of torchvision's `ImageFolder`.

use crate::collate::Sample;
use crate::source::Source;
use gradus_core::tensor::TensorData;
use gradus_core::{Error, Key, Result};
use image::imageops::FilterType;
use std::path::{Path, PathBuf};

/// Images of a folder: each folder in it is a class, and each PNG or JPEG file in that an image of the class. Classes are numbered in
/// the order of their names, images are in the order of classes and names.
///
/// An image is `f32[3, height, width]` from 0 to 1, scaled to the size asked for; its label is the number of its class. Files are read
/// when they are wanted: only their names stay in memory.
///
/// ```no_run
/// let birds = gradus_data::ImageFolder::open("birds", 32, 32)?;
/// println!("{:?}", birds.classes());
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ImageFolder {
    classes: Vec<String>,
    files: Vec<(PathBuf, i64)>,
    height: usize,
    width: usize,
}

impl ImageFolder {
    /// The images of a folder, each to be scaled to `height` × `width`. A folder without images is an error, and so is a size of 0.
    pub fn open(folder: impl AsRef<Path>, height: usize, width: usize) -> Result<ImageFolder> {
        let folder = folder.as_ref();
        if height == 0 || width == 0 || height.max(width) > 1 << 16 {
            return Err(Error::misuse(format!(
                "images are to be 1 to 65536 pixels wide and high; got {height} × {width}"
            )));
        }
        let folders = listed(folder)?.into_iter().filter(|path| path.is_dir());
        let (mut classes, mut files) = (Vec::new(), Vec::new());
        for class in folders {
            let label = classes.len() as i64;
            let images = listed(&class)?.into_iter().filter(|path| is_image(path));
            files.extend(images.map(|path| (path, label)));
            classes.push(class.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()));
        }
        if files.is_empty() {
            return Err(Error::data(format!(
                "{}: {} folders of classes, but no .png, .jpg or .jpeg file in them",
                folder.display(),
                classes.len()
            )));
        }
        Ok(ImageFolder { classes, files, height, width })
    }
    /// The names of the classes, by their numbers.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }
    /// The class of each image, for a stratified split.
    pub fn labels(&self) -> Vec<i64> {
        self.files.iter().map(|&(_, label)| label).collect()
    }
}

/// What is in a folder, in the order of names.
fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::io(format!("cannot list {}", folder.display()), e);
    let entries = std::fs::read_dir(folder).map_err(failed)?;
    let mut paths = entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn is_image(path: &Path) -> bool {
    let ending = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    matches!(ending.as_deref(), Some("png" | "jpg" | "jpeg"))
}

impl Source for ImageFolder {
    type Item = Sample;
    fn len(&self) -> usize {
        self.files.len()
    }
    fn get(&self, index: usize, _key: &Key) -> Result<Sample> {
        let missing = || Error::data(format!("there is no image {index}: the folder has {}", self.files.len()));
        let (path, label) = self.files.get(index).ok_or_else(missing)?;
        let image = image::open(path).map_err(|e| Error::data(format!("cannot read {}: {e}", path.display())))?;
        let (height, width) = (self.height as u32, self.width as u32);
        let image = image.resize_exact(width, height, FilterType::Triangle).to_rgb8();
        // From pixels of three colours to three planes.
        let planes: Vec<f32> = (0..3).flat_map(|c| image.pixels().map(move |p| f32::from(p.0[c]) / 255.0)).collect();
        Ok(Sample {
            input: TensorData::try_new(&planes, &[3, self.height, self.width])?,
            target: TensorData::try_new(&[*label], &[])?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{Rgb, RgbImage};

    /// A folder of its own, removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("gradus-images-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
        fn image(&self, class: &str, name: &str, colour: [u8; 3]) {
            std::fs::create_dir_all(self.0.join(class)).unwrap();
            RgbImage::from_pixel(4, 2, Rgb(colour)).save(self.0.join(class).join(name)).unwrap();
        }
    }
    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn images_are_planes_of_colours_and_classes_are_in_the_order_of_names() {
        let folder = Folder::new("planes");
        folder.image("wren", "a.png", [255, 0, 51]);
        folder.image("crow", "b.PNG", [0, 0, 0]);
        std::fs::write(folder.0.join("crow").join("notes.txt"), "black").unwrap();
        let images = ImageFolder::open(&folder.0, 2, 4).unwrap();
        assert_eq!((images.classes(), images.labels()), (&["crow".to_owned(), "wren".to_owned()][..], vec![0, 1]));
        let wren = images.get(1, &Key::new(0)).unwrap();
        let planes: Vec<f64> = (0..24).map(|i| wren.input.f64_at(i)).collect();
        assert_eq!(planes[..8], [1.0; 8]);
        assert_eq!(planes[8..16], [0.0; 8]);
        assert!(planes[16..].iter().all(|x| (x - 0.2).abs() < 1e-6), "{planes:?}");
        assert_eq!(wren.target.i64_at(0), 1);
    }

    #[test]
    fn what_is_no_image_is_named() {
        let folder = Folder::new("broken");
        let message = ImageFolder::open(&folder.0, 2, 2).unwrap_err().to_string();
        assert!(message.contains("0 folders of classes"), "{message}");
        folder.image("crow", "b.png", [0, 0, 0]);
        std::fs::write(folder.0.join("crow").join("c.png"), "not a picture").unwrap();
        let images = ImageFolder::open(&folder.0, 2, 2).unwrap();
        let message = images.get(1, &Key::new(0)).unwrap_err().to_string();
        assert!(message.contains("c.png"), "{message}");
        assert!(images.get(2, &Key::new(0)).is_err());
        assert!(ImageFolder::open(folder.0.join("nowhere"), 2, 2).unwrap_err().to_string().contains("nowhere"));
        assert!(ImageFolder::open(&folder.0, 0, 2).is_err());
    }
}
