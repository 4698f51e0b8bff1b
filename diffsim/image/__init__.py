"""From camera raw to picture: differentiable stages, chains of them, raws, picture files and metrics.

Pictures are arrays (3, height, width) in [0, 1], mosaics (height, width); there is no batch axis. Functions that
compute with a picture of whole numbers raise InputError.
"""

from .burst import MergeBurst as MergeBurst
from .burst import register_burst as register_burst
from .chain import Chain as Chain
from .chain import FunctionStage as FunctionStage
from .chain import adjoints as adjoints
from .color_difference import delta_e as delta_e
from .demosaicing.bayer import PATTERNS as PATTERNS
from .demosaicing.bayer import cut_back as cut_back
from .demosaicing.bayer import mosaic as mosaic
from .demosaicing.bayer import to_rggb as to_rggb
from .demosaicing.denoising_network import DenoisingDemosaic as DenoisingDemosaic
from .demosaicing.linear import bilinear as bilinear
from .demosaicing.linear import malvar as malvar
from .demosaicing.menon import menon as menon
from .demosaicing.network import DemosaicNetwork as DemosaicNetwork
from .develop import Exposure as Exposure
from .develop import develop as develop
from .hot_pixels import without_hot_pixels as without_hot_pixels
from .io.pictures import read_picture as read_picture
from .io.pictures import write_picture as write_picture
from .io.raw import Raw as Raw
from .io.raw import read_binary as read_binary
from .io.raw import read_raw as read_raw
from .io.write_raw import write_raw as write_raw
from .metrics import ms_ssim as ms_ssim
from .metrics import psnr as psnr
from .metrics import ssim as ssim
from .noise_estimate import estimate_noise as estimate_noise
from .ops.box_filter import box_filter as box_filter
from .ops.correlate import correlate as correlate
from .ops.correlate import stencil as stencil
from .ops.luma import luma as luma
from .registration import Motion as Motion
from .registration import register as register
from .sensor import Camera as Camera
from .sensor import Noise as Noise
from .sensor import unprocess as unprocess
from .stages.bilateral_grid import BilateralGrid as BilateralGrid
from .stages.color_matrix import ColorMatrix as ColorMatrix
from .stages.color_transform import ColorTransform as ColorTransform
from .stages.gamma import Gamma as Gamma
from .stages.guided_filter import GuidedFilter as GuidedFilter
from .stages.highlights import Highlights as Highlights
from .stages.lens import LensDistortion as LensDistortion
from .stages.lens import LensShading as LensShading
from .stages.local_laplacian import LocalLaplacian as LocalLaplacian
from .stages.lookup_table import LookupTable as LookupTable
from .stages.saturation import Saturation as Saturation
from .stages.tone_curve import ColorCurves as ColorCurves
from .stages.tone_curve import ToneCurve as ToneCurve
from .stages.unsharp_mask import UnsharpMask as UnsharpMask
from .stages.variance_stabilization import stabilize_variance as stabilize_variance
from .stages.variance_stabilization import unstabilize_variance as unstabilize_variance
from .stages.white_balance import WhiteBalance as WhiteBalance
from .tiled import in_tiles as in_tiles
from .warp import affine_places as affine_places
from .warp import homography_places as homography_places
from .warp import pixel_places as pixel_places
from .warp import warp as warp
