"""From camera raw to picture: differentiable stages, chains of them, raws, picture files and metrics.

Pictures are arrays (3, height, width) in [0, 1], mosaics (height, width); there is no batch axis. Whole numbers are
refused with an InputError wherever they would be computed with.
"""

from .bayer import PATTERNS as PATTERNS
from .bayer import cut_back as cut_back
from .bayer import mosaic as mosaic
from .bayer import to_rggb as to_rggb
from .box import box as box
from .chain import Apply as Apply
from .chain import Chain as Chain
from .chain import adjoints as adjoints
from .classical import bilinear as bilinear
from .classical import malvar as malvar
from .colour import Balance as Balance
from .colour import ColourMatrix as ColourMatrix
from .colour import Gamma as Gamma
from .colour import Saturation as Saturation
from .colour import ToneCurve as ToneCurve
from .colour import luma as luma
from .colour import root as root
from .colour import square as square
from .demosaic import Demosaic as Demosaic
from .filters import GuidedFilter as GuidedFilter
from .grid import BilateralGrid as BilateralGrid
from .laplacian import LocalLaplacian as LocalLaplacian
from .menon import menon as menon
from .metrics import psnr as psnr
from .metrics import ssim as ssim
from .pictures import read_picture as read_picture
from .pictures import write_picture as write_picture
from .raw import Raw as Raw
from .raw import read_binary as read_binary
from .raw import read_raw as read_raw
from .restore import Restore as Restore
from .sensor import Camera as Camera
from .sensor import Noise as Noise
from .sensor import expose as expose
from .sharpen import Sharpen as Sharpen
from .stencil import correlate as correlate
from .stencil import stencil as stencil
from .tiles import in_tiles as in_tiles
