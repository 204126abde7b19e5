"""Annotations of other tools: labelme, COCO, CVAT, Pascal VOC and YOLO."""
