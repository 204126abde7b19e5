"""Datasets: image and label files as RGB images with label maps of train ids."""

from liteseg.datasets.base import Sample, SegmentationDataset
from liteseg.datasets.camvid import CamVid
from liteseg.datasets.check import check_dataset, check_samples
from liteseg.datasets.cityscapes import Cityscapes, train_id_to_id
from liteseg.datasets.concat import Concat
from liteseg.datasets.custom import Dataset
from liteseg.datasets.driving import ACDC, BDD100K, GTA5, IDD, KITTI, MapillaryVistas
from liteseg.datasets.duplicates import find_duplicates
from liteseg.datasets.label_values import count_label_pixels
from liteseg.datasets.streets.dataset import Streets
from liteseg.utils.class_weights import class_weights

__all__ = [
    "ACDC",
    "BDD100K",
    "GTA5",
    "IDD",
    "KITTI",
    "CamVid",
    "Cityscapes",
    "Concat",
    "Dataset",
    "MapillaryVistas",
    "Sample",
    "SegmentationDataset",
    "Streets",
    "check_dataset",
    "check_samples",
    "class_weights",
    "count_label_pixels",
    "find_duplicates",
    "train_id_to_id",
]
