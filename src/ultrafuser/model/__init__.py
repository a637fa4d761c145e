"""The fused model. Importing this package registers it with transformers' Auto classes."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from ultrafuser.model.configuration_ultrafuser import UltraFuserConfig
from ultrafuser.model.modeling_ultrafuser import UltraFuserForCausalLM, UltraFuserModel

AutoConfig.register(UltraFuserConfig.model_type, UltraFuserConfig, exist_ok=True)
AutoModel.register(UltraFuserConfig, UltraFuserModel, exist_ok=True)
AutoModelForCausalLM.register(UltraFuserConfig, UltraFuserForCausalLM, exist_ok=True)
