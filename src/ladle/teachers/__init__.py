"""Teachers: frozen networks, outside the student's checkpoint and optimizer; Ladle's own and of any other origin."""

from ladle.teachers.classes import COCO_CLASSES, ClassTable, match_classes
from ladle.teachers.dense_file import DenseFile, DenseHeader
from ladle.teachers.dense_recorded import DenseTeacher
from ladle.teachers.detections import TeacherDetections
from ladle.teachers.exported import ExportedTeacher
from ladle.teachers.foreign import Foreign, ForeignTeacher
from ladle.teachers.frozen import FrozenDetector, FrozenHead
from ladle.teachers.inputs import TeacherInput
from ladle.teachers.ladle_file import LadleTeacher
from ladle.teachers.moved import MovedTeacher, moved_info
from ladle.teachers.of_student import (
    AuxiliaryTeacher,
    AverageTeacher,
    StudentTeacher,
    auxiliary_info,
    teacher_of_student,
)
from ladle.teachers.opening import open_any, open_foreign, open_teacher
from ladle.teachers.placing import place
from ladle.teachers.program import FileTeacher
from ladle.teachers.protocol import Observation, Teacher
from ladle.teachers.recorded import CacheHeader, RecordedTeacher, cache_line, read_cache
from ladle.teachers.resampling import resample
from ladle.teachers.timm_file import TimmTeacher
from ladle.teachers.torchvision_file import TorchvisionTeacher
from ladle.teachers.transformers_file import TransformersTeacher
from ladle.teachers.uri import TeacherURI, parse_uri

__all__ = [
    "COCO_CLASSES",
    "AuxiliaryTeacher",
    "AverageTeacher",
    "CacheHeader",
    "ClassTable",
    "DenseFile",
    "DenseHeader",
    "DenseTeacher",
    "ExportedTeacher",
    "FileTeacher",
    "Foreign",
    "ForeignTeacher",
    "FrozenDetector",
    "FrozenHead",
    "LadleTeacher",
    "MovedTeacher",
    "Observation",
    "RecordedTeacher",
    "StudentTeacher",
    "Teacher",
    "TeacherDetections",
    "TeacherInput",
    "TeacherURI",
    "TimmTeacher",
    "TorchvisionTeacher",
    "TransformersTeacher",
    "auxiliary_info",
    "cache_line",
    "match_classes",
    "moved_info",
    "open_any",
    "open_foreign",
    "open_teacher",
    "parse_uri",
    "place",
    "read_cache",
    "resample",
    "teacher_of_student",
]
