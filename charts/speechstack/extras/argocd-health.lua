-- Health of a SpeechStack for Argo CD: `resource.customizations.health.speechstack.dev_SpeechStack` of the ConfigMap argocd-cm.
-- A first start, a rollout and a repair are Progressing; what needs a person is Degraded.
local health = {status = "Progressing", message = "the operator has not seen it yet"}
if obj.status == nil or obj.status.conditions == nil then
  return health
end
if obj.metadata.generation ~= nil and obj.status.observedGeneration ~= obj.metadata.generation then
  health.message = "the operator has not seen this version yet"
  return health
end
local conditions = {}
for _, condition in ipairs(obj.status.conditions) do
  conditions[condition.type] = condition
end
local ready = conditions["Ready"]
if ready == nil then
  return health
end
health.message = ready.message
local phase = obj.status.phase
if phase == "Suspended" then
  health.status = "Suspended"
elseif phase == "Failed" or ready.reason == "InvalidSpec" or ready.reason == "ApplyFailed" then
  health.status = "Degraded"
elseif ready.status == "True" then
  health.status = "Healthy"
elseif phase == "Degraded" then
  -- It serves with fewer replicas than desired: an application should not fail its sync for that.
  health.status = "Progressing"
end
local suspended = conditions["RepairSuspended"]
if suspended ~= nil and suspended.status == "True" and suspended.reason ~= "Held" then
  health.status = "Degraded"
  health.message = suspended.message
end
return health
