"""Datasets: files on disk as RGB images with label maps of train ids."""

from liteseg.config.class_weights import class_weights
from liteseg.datasets.base import Sample, SegmentationDataset
from liteseg.datasets.camvid import CamVid
from liteseg.datasets.check import check_dataset, find_duplicates, format_report
from liteseg.datasets.cityscapes import Cityscapes, Streets, train_id_to_id
from liteseg.datasets.file_list import Dataset
from liteseg.datasets.stats import class_frequencies

__all__ = [
    "CamVid",
    "Cityscapes",
    "Dataset",
    "Sample",
    "SegmentationDataset",
    "Streets",
    "check_dataset",
    "class_frequencies",
    "class_weights",
    "find_duplicates",
    "format_report",
    "train_id_to_id",
]
