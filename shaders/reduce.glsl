// Sums and maxima over a workgroup whose subgroups may have any size. Every invocation must call,
// and gets the result.
shared float reduce_parts[WG];

float workgroup_sum(float value) {
  float part = subgroupAdd(value);
  barrier();  // the previous reduction has been read
  if (subgroupElect()) reduce_parts[gl_SubgroupID] = part;
  barrier();
  float sum = 0.0;
  for (uint i = 0u; i < gl_NumSubgroups; i++) sum += reduce_parts[i];
  return sum;
}

float workgroup_max(float value) {
  float part = subgroupMax(value);
  barrier();
  if (subgroupElect()) reduce_parts[gl_SubgroupID] = part;
  barrier();
  float most = reduce_parts[0];
  for (uint i = 1u; i < gl_NumSubgroups; i++) most = max(most, reduce_parts[i]);
  return most;
}
